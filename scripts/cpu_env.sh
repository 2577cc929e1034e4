# shellcheck shell=sh
# Allocator settings for running on a CPU under Linux; source this file.
#
# XLA allocates its temporary buffers anew at every call. By default glibc maps
# each large one freshly and gives it back at once, so that every step pays for
# the page faults again. These settings keep freed memory mapped, in huge pages.
# Results do not change; a process holds on to the most memory it ever used.
# What you have set yourself is left alone.

if [ "$(uname -s)" = Linux ]; then
  export MALLOC_MMAP_MAX_="${MALLOC_MMAP_MAX_:-0}"
  export MALLOC_TRIM_THRESHOLD_="${MALLOC_TRIM_THRESHOLD_:-17179869184}"
  export MALLOC_ARENA_MAX="${MALLOC_ARENA_MAX:-1}"
  export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"
fi
