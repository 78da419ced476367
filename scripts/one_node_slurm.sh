#!/usr/bin/env bash
# A SLURM of one node, this machine, to test with: configuration, keys, state and logs are in one
# folder and nowhere else.  It needs root and Debian's slurmctld, slurmd, slurm-client and munge.
#
#   scripts/one_node_slurm.sh start FOLDER    then SLURM_CONF=FOLDER/slurm.conf for every command
#   scripts/one_node_slurm.sh stop FOLDER
set -euo pipefail

usage="usage: $0 start|stop FOLDER"
action=${1:?$usage}
folder=${2:?$usage}
host=$(hostname -s)
port=$((20000 + $$ % 10000 * 2))

start() {
  mkdir -p "$folder"/{state,spool}
  chmod 755 "$folder"  # munge wants to be reached
  folder=$(realpath "$folder")
  (umask 077 && head -c 1024 /dev/urandom >"$folder/munge.key")
  munged --socket="$folder/munge.socket" --key-file="$folder/munge.key" \
    --pid-file="$folder/munge.pid" --seed-file="$folder/munge.seed" \
    --log-file="$folder/munge.log" --force 2>>"$folder/munge.log"

  # A job that is queued again waits until its credential has expired, two minutes by default.
  cat >"$folder/slurm.conf" <<CONF
ClusterName=recall
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket,cred_expire=5
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1
ReturnToService=2
MpiDefault=none
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES State=UP
CONF
  export SLURM_CONF=$folder/slurm.conf
  slurmctld -c -f "$SLURM_CONF"
  slurmd -f "$SLURM_CONF"
  for _ in $(seq 60); do
    [ "$(sinfo --noheader --format=%T 2>/dev/null)" = idle ] && return
    sleep 0.5
  done
  echo "the node did not become idle: see $folder/*.log" >&2
  return 1
}

stop() {
  export SLURM_CONF=$folder/slurm.conf
  scancel --me --signal=KILL --full 2>/dev/null || true
  scancel --me 2>/dev/null || true
  for daemon in slurmd slurmctld munge; do
    if [ -f "$folder/$daemon.pid" ]; then
      kill "$(cat "$folder/$daemon.pid")" 2>/dev/null || true
    fi
  done
}

case $action in
  start) start ;;
  stop) stop ;;
  *) echo "$usage" >&2; exit 2 ;;
esac
