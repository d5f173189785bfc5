# shellcheck shell=bash disable=SC2034
# What depends on the cluster, and nothing else. Change it here, or put what differs into a file of your own:
#   LOLCATS_SITE=/path/to/my_cluster.sh sbatch jobs/linearize_405b.sh
# That file is sourced after this one, so it names only what it changes. `root` is the repository.

site_partition=          # empty: the cluster's default
site_account=            # empty: yours
site_time=24:00:00       # limit of a stage's job; one that needs longer is stopped in time, requeued, and goes on;
                         # empty: the partition's default
site_sbatch_options=()   # anything else that every stage's job needs, such as (--qos=normal --exclusive)
site_modules=()          # loaded in this order before a program runs, such as (gcc/12 openmpi/4.1 hdf5/1.14-mpi)

site_gpus_per_node=8     # 0: none are asked for
site_ranks_per_node=8    # one rank a GPU
site_cpus_per_rank=8

site_launcher=srun       # srun or mpirun
site_srun_options=(--mpi=pmix --kill-on-bad-exit=1)
site_mpirun_options=()

site_scratch=${SCRATCH:-$root/work} # a parallel file system: work directories are made in it
site_models=             # Hugging Face directories of the teachers; empty: $site_scratch/models
site_data=               # token files; empty: $site_scratch/data
site_streaming=0 # 1: stages 0 and 1 at once, by lolcats_convert, which stores no hidden states
site_bin=                # the compiled programs; empty: $root/build-cuda/bin with GPUs, else $root/build/bin
site_python=python3      # with h5py; linearize_tiny.sh makes its corpus with it
site_program_options=()             # options that every program gets here, such as (--gemm bf16)

site_warning_seconds=600 # a job is told to stop this long before its time is up: longer than a step and a checkpoint
                         # (streaming: than a few steps), and at most a third of site_time
site_max_restarts=100    # a job that was requeued this often fails instead

# What lolcats_plan counts with: bytes of memory of a rank, its sustained FLOP/s, the file system's bytes/s.
site_plan_options=(--plan-memory 80e9 --plan-flops 400e12 --plan-bandwidth 10e9)
