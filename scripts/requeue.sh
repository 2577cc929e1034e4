# To be sourced in a batch script of Slurm, right after the `srun` of training:
# puts the job back into the queue if it was asked to stop before its end.
#
# Training answers SIGTERM with 143 when all is saved. A job whose time is up,
# or that is preempted with a grace time, is still RUNNING then; one that was
# cancelled, or that Slurm puts back by itself, is not.
code=$?
if [ "$code" = 143 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 100 ] &&
  [ "$(squeue --noheader --format=%T --jobs="$SLURM_JOB_ID")" = RUNNING ]
then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
