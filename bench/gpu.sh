#!/usr/bin/env bash
# Runs SGLang with a random-weight model of real size on the GPUs of this machine, measures it, and fits an engine
# profile to it (docs/gpu.md). Without a GPU, or with --smoke: a tiny model on the CPU, to try the chain; its numbers
# mean nothing. Needs a Python from 3.11 on that has SGLang; nothing of SAGA need be installed.
set -uo pipefail

usage() {
  cat <<'USAGE'
bench/gpu.sh [FLAGS] [-- MORE FLAGS OF SGLANG]
  --shape S      llama3-3b, llama3-8b (default) or llama3-70b, with random weights
  --model DIR    instead: a model folder on this machine, as it is
  --base P       profile with that model's costs of a token, where it is not dense or not in 16 bits
  --tp N         tensor parallel (default 1)
  --python P     the Python that has SGLang (default $SAGA_SGLANG_PYTHON, else python3)
  --out DIR      measurements, profile, report, log (default .saga/gpu)
  --name NAME    of the profile (default from GPU and model)
  --budget-s S   measure no new setting after so many seconds (default 300)
  --start-s S    the server must serve within so many seconds (default 900)
  --fit "..."    more flags of fit_profile.py, for a GPU that data_sheets.toml does not know
  --smoke        the tiny model on the CPU
USAGE
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd) || exit 2
here=$root/bench/gpu
shape=llama3-8b model="" base="" tp=1 python=${SAGA_SGLANG_PYTHON:-} out=$root/.saga/gpu name=""
budget_s=300 start_s=900 fit=() smoke="" extra=()
server_pid="" step_pid=""

die() { echo "gpu.sh: $1" >&2; exit "${2:-2}"; }

while [ $# -gt 0 ]; do
  case $1 in
    --shape | --model | --base | --tp | --python | --out | --name | --budget-s | --start-s | --fit)
      [ $# -ge 2 ] || die "$1 needs a value"
      case $1 in
        --shape) shape=$2 ;; --model) model=$2 ;; --base) base=$2 ;; --tp) tp=$2 ;;
        --python) python=$2 ;; --out) out=$2 ;; --name) name=$2 ;;
        --budget-s) budget_s=$2 ;; --start-s) start_s=$2 ;; --fit) read -ra fit <<<"$2" ;;
      esac
      shift 2 ;;
    --smoke) smoke=yes; shift ;;
    --help | -h) usage; exit 0 ;;
    --) shift; extra=("$@"); break ;;
    *) usage >&2; die "what is $1?" ;;
  esac
done
for number in "$tp" "$budget_s" "$start_s"; do
  [[ $number =~ ^[1-9][0-9]*$ ]] || die "$number is no whole number above 0"
done
[ -z "$model" ] || [ -f "$model/config.json" ] || die "$model has no config.json"

gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1)
if [ -z "$gpu" ] && [ -z "$smoke" ]; then
  echo "gpu.sh: no GPU here (nvidia-smi tells none): a smoke run on the CPU"
  smoke=yes
fi
if [ -n "$smoke" ] && [ -z "$python" ]; then
  python=$root/.venv-sglang/bin/python
  [ -x "$python" ] || die "no SGLang for the CPU: make sglang-cpu, or name a Python with --python"
fi
python=${python:-python3}
"$python" - <<'CHECK' || die "$python will not do: a Python from 3.11 on that has SGLang 0.5.23 is needed (--python)"
import importlib.metadata, importlib.util, sys
missing = [name for name in ("sglang", "aiohttp", "msgspec") if importlib.util.find_spec(name) is None]
if sys.version_info < (3, 11) or missing:
    sys.exit(f"Python {sys.version.split()[0]}" + (f" without {', '.join(missing)}" if missing else ""))
print(f"SGLang {importlib.metadata.version('sglang')} in {sys.executable}")
CHECK

mkdir -p "$out" || die "cannot make $out"
out=$(cd "$out" && pwd)
export PYTHONPATH="$root/shared:$root/services:$root/loadgen${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1

stop() {
  local pid
  for pid in $step_pid; do kill -TERM "$pid" 2>/dev/null; done
  [ -n "$server_pid" ] || return
  kill -TERM "$server_pid" 2>/dev/null
  for _ in $(seq 100); do
    kill -0 -- "-$server_pid" 2>/dev/null || break
    sleep 0.2
  done
  kill -KILL -- "-$server_pid" 2>/dev/null # its own session: only what it started
  wait "$server_pid" 2>/dev/null
  server_pid=""
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# In the background, so that a signal is heard meanwhile.
step() {
  "$@" &
  step_pid=$!
  wait "$step_pid"
  local status=$?
  step_pid=""
  return $status
}

# --- the server ------------------------------------------------------------------------------------------------------
port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])') ||
  die "no free port"
[ -z "$smoke" ] || shape=smoke
flags=(--host 127.0.0.1 --port "$port" --page-size 64 --tp-size "$tp")
flags+=(--enable-metrics --enable-cache-report --enable-session-radix-cache)
if [ -n "$model" ]; then
  model_name=$(basename "$(cd "$model" && pwd)")
else
  model=$out/models/$shape model_name=$shape
  "$python" "$here/make_model.py" "$shape" "$model" || die "no model"
  flags+=(--load-format dummy --skip-tokenizer-init)
fi
flags+=(--model-path "$model" --served-model-name "$model_name")
measure=(--budget-s "$budget_s")
if [ -n "$smoke" ]; then
  flags+=(--device cpu --attention-backend torch_native --dtype bfloat16 --mem-fraction-static 0.2)
  flags+=(--disable-overlap-schedule --skip-server-warmup --sleep-on-idle)
  flags+=(--max-total-tokens 32768 --chunked-prefill-size 1024)
  export SGLANG_USE_CPU_ENGINE=1 OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
  measure+=(--longest-prompt 1024 --largest-batch 4 --repetitions 1 --passes 16)
  [ ${#fit[@]} -gt 0 ] || fit=(--peak-flops 1e12 --mem-bytes-per-s 2e10 --hbm-bytes 64e9) # made up
  name=${name:-smoke}
else
  flags+=(--mem-fraction-static 0.85) # a profile may take 90 % of the memory for weights and KV
  slug=$(tr '[:upper:] ' '[:lower:]-' <<<"${gpu#NVIDIA }" | tr -cd 'a-z0-9-')
  name=${name:-${slug}x$tp-$model_name}
fi
[ -z "$base" ] || fit+=(--base "$base")

echo "starting SGLang, its log is $out/sglang.log"
HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 setsid "$python" -m saga.cli.tied \
  "$python" -m sglang.launch_server "${flags[@]}" ${extra[@]+"${extra[@]}"} >"$out/sglang.log" 2>&1 </dev/null &
server_pid=$!
since=$SECONDS
until "$python" -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=5)' \
  "http://127.0.0.1:$port/health" 2>/dev/null; do
  kill -0 "$server_pid" 2>/dev/null || { tail -n 30 "$out/sglang.log" >&2; die "SGLang ended before it served" 1; }
  [ $((SECONDS - since)) -lt "$start_s" ] || { tail -n 30 "$out/sglang.log" >&2; die "SGLang does not serve" 1; }
  sleep 1
done
echo "it serves after $((SECONDS - since)) s"

# --- measure, then fit -------------------------------------------------------------------------------------------------
step "$python" "$here/measure.py" --url "http://127.0.0.1:$port" --out "$out/measurements.jsonl" "${measure[@]}" ||
  die "not measured; the server's log is $out/sglang.log" 1
stop
"$python" "$here/fit_profile.py" "$out/measurements.jsonl" --out "$out/$name.toml" ${fit[@]+"${fit[@]}"} |
  tee "$out/$name.txt"
status=${PIPESTATUS[0]}
if [ -n "$smoke" ] && [ $status -le 1 ]; then
  echo "gpu.sh: the chain works; on a CPU the numbers and the error of the fit mean nothing"
  status=0
fi
exit $status
