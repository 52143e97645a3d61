#!/usr/bin/env bash
# Starts a search on the Ray cluster that this runs in, or goes on with it where it has begun: a job
# that Kubernetes starts again, on a new cluster, finishes the same search.
#   search.sh NAME SWEEP-FILE [further options of "python -m tuning run"]
# The experiments lie in $STORAGE: a directory that every node reaches, or a URI (s3://BUCKET/runs).
set -euo pipefail
cd "$(dirname "$0")/../.."
name=$1
sweep=$2
shift 2
storage=${STORAGE:-/mnt/runs}

begun=$(python -m tuning.storage "$storage" "$name")  # ends here where that cannot be found out
if [ "$begun" = yes ]; then
  exec python -m tuning resume "$name" --storage "$storage" --address auto
fi
exec python -m tuning run "$sweep" --name "$name" --storage "$storage" --address auto "$@"
