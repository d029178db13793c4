#!/usr/bin/env bash
# Works in steps and goes on with the first that is not done when its job starts again.
#
#     hpc-task --project runs --name steps --script checkpoint.sh --queue cpu
#
# A preemption, a time limit and a cancellation send SIGTERM, to this shell and to the program that it waits for. bash
# runs the trap when that program has ended. Exit code 143 says that there is more to do: a task that ends with 0 is
# complete.
set -euo pipefail

steps=${STEPS:-20}
folder=${CHECKPOINTS:-$HOME/checkpoints}/$CLEARML_TASK_ID # of this task alone, on the shared file system
mkdir -p "$folder"
stopping=''
trap 'stopping=1' TERM

finished=$(tail -n 1 "$folder/finished" 2>/dev/null || echo 0)
echo "begins with step $((finished + 1))"
for ((step = finished + 1; step <= steps; step++)); do
    status=0
    sleep "${SECONDS_PER_STEP:-1}" || status=$? # here your program
    if [ "$status" -eq 143 ] || { [ -n "$stopping" ] && [ "$status" -ne 0 ]; }; then
        # 143: SIGTERM ended the program, which may get it before this shell does.
        echo "stopped in step $step"
        exit 143
    elif [ "$status" -ne 0 ]; then
        echo "step $step failed with exit code $status" >&2
        exit "$status"
    fi
    # This shell adds the line itself: SIGTERM could end a program in the middle.
    echo "$step" >>"$folder/finished"
    echo "step $step done"
    if [ -n "$stopping" ] && [ "$step" -lt "$steps" ]; then
        echo "stopped after step $step"
        exit 143
    fi
done
echo "all steps done"
