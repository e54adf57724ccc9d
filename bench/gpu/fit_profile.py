"""Fits an engine profile to what measure.py wrote: a TOML file, and how far the profile is from each measured time.

    python bench/gpu/fit_profile.py measurements.jsonl --out h200x1-llama3-8b.toml

Exit status: 0 fitted; 1 no use: a group's median error is above the goal, or the profile beats its own hardware (then
nothing is written), or a constant cannot be told; 2 bad input. Run by bench/gpu.sh; needs msgspec alone.
"""

import argparse
import re
import sys
import textwrap
from pathlib import Path

import msgspec
from msgspec import Struct

from saga.engine.fitting import GOAL, Fit, FitError, fit
from saga.engine.measurements import COSTS, Facts, Hardware, MeasurementError, base_profile, points, read
from saga.engine.profile import Profile, UnknownProfileError, load_profile
from saga.sim.clusters import ClusterError, check_physical

SHEETS = Path(__file__).with_name("data_sheets.toml")
FITTED = ("mfu", "mbu", "overhead_s")
TOLD = ("context_tokens", "page_tokens", "max_running", "chunk_tokens", "kv_tokens")
HARDWARE = ("peak_flops", "mem_bytes_per_s", "hbm_bytes")
WEIGHTS_APART = 0.1  # of the weights that the server loaded and those that the shape says


class DataSheet(Struct, frozen=True, forbid_unknown_fields=True):
    """Of one GPU."""

    peak_flops: float
    mem_bytes_per_s: float


class Known(Struct, frozen=True):
    """Constants that are not fitted, and where each of one GPU's is from."""

    base: Profile
    sources: dict[str, str]


def known(flags: argparse.Namespace, facts: Facts) -> Known:
    """Everything but what is fitted. Raises MeasurementError or UnknownProfileError."""
    sheets = msgspec.toml.decode(SHEETS.read_bytes(), type=dict[str, DataSheet])
    here = msgspec.to_builtins(sheets[facts.gpu]) if facts.gpu in sheets else {}
    if facts.gpu_bytes:
        here["hbm_bytes"] = float(facts.gpu_bytes)
    sources = dict.fromkeys(HARDWARE[2:], f"{facts.gpus} x what nvidia-smi says")
    sources |= dict.fromkeys(HARDWARE[:2], f"{facts.gpus} x its data sheet")
    for field in HARDWARE:
        flag = "--" + field.replace("_", "-")
        if given := getattr(flags, field):
            here[field] = given
            sources[field] = f"{facts.gpus} x {flag}"
        elif field not in here:
            raise MeasurementError(f"{field} of {facts.gpu!r} is unknown: {flag}; known GPUs: {', '.join(sheets)}")
    costs = load_profile(flags.base) if flags.base else None
    sources |= dict.fromkeys(COSTS, f"from {flags.base}" if flags.base else "arithmetic on config.json")
    if costs is None:
        sources["mean_output_tokens"] = "as the published workload"
    sources |= dict.fromkeys(FITTED, "fitted to measured times")
    sources |= dict.fromkeys(TOLD, f"told by SGLang {facts.sglang}")
    return Known(base_profile(facts, flags.out.stem, Hardware(**here), costs), sources)


def as_toml(fitted: Fit, facts: Facts, sources: dict[str, str]) -> str:
    """The profile with the source of each constant."""
    errors = "; ".join(f"{group.group} {group.median:.1%} / {group.p90:.1%}" for group in fitted.groups)
    head = (
        f"{facts.model} on {facts.gpus} x {facts.gpu}, SGLang {facts.sglang}, attention {facts.attention or 'unsaid'}. "
        f"Written by bench/gpu/fit_profile.py. Relative error, median / P90: {errors}."
    )
    if not fitted.good:
        head += f" WORSE THAN THE GOAL of {GOAL:.0%}: this profile does not tell how fast that server is."
    lines = textwrap.wrap(head, 118, initial_indent="# ", subsequent_indent="# ")
    for field in msgspec.structs.fields(Profile):
        value = getattr(fitted.profile, field.name)
        if value != field.default:
            text = f"{value:.8g}" if isinstance(value, float) else msgspec.json.encode(value).decode()
            line = f"{field.name} = {text}"
            lines.append(f"{line:<33}# {sources[field.name]}" if field.name in sources else line)
    return "\n".join(lines) + "\n"


def report(fitted: Fit, facts: Facts, left_out: tuple[str, ...]) -> str:
    """Constants, errors by group, then each point."""
    profile = fitted.profile
    lines = [f"{profile.name}: {profile.model} on {facts.gpus} x {facts.gpu}"]
    lines.append(f"  mfu {profile.mfu:.3f}  mbu {profile.mbu:.3f}  overhead {1e3 * profile.overhead_s:.2f} ms")
    fits = (0.9 * profile.hbm_bytes - profile.weight_bytes) / profile.kv_bytes_per_token
    lines.append(f"  KV {profile.kv_tokens:,} tokens; 90 % of the memory less the weights is {fits:,.0f}")
    weights = profile.weight_bytes / facts.gpus
    if facts.loaded_weight_bytes and abs(facts.loaded_weight_bytes / weights - 1) > WEIGHTS_APART:
        loaded = f"{facts.loaded_weight_bytes / 1e9:.3g} GB of weights loaded on a GPU"
        lines.append(f"  note: {loaded}, {weights / 1e9:.3g} GB in the profile")
    lines += [f"  left out: {what}" for what in left_out]
    lines.append(f"\n{'relative error':<22}{'points':>8}{'median':>9}{'P90':>9}   worst")
    for group in fitted.groups:
        row = f"{group.group:<22}{group.points:>8}{group.median:>9.1%}{group.p90:>9.1%}"
        lines.append(f"{row}   {group.worst_error:+.1%} at {group.worst}")
    lines.append(f"\n{'':<22}{'':>18}{'measured':>12}{'model':>12}{'error':>9}")
    for residual in fitted.residuals:
        point, passes = residual.point, 1 if residual.point.group != "decode" else residual.point.tokens
        pair = f"{1e3 * point.seconds / passes:>9.2f} ms{1e3 * residual.model_s / passes:>9.2f} ms"
        lines.append(f"{point.group:<22}{point.name:>18}{pair}{residual.error:>+9.1%}")
    return "\n".join(lines) + "\n"


def run(flags: argparse.Namespace) -> int:
    """Fit and write. Raises what main says."""
    measurements = read(flags.measurements.read_bytes())
    constants = known(flags, measurements.facts)
    fitted = fit(points(measurements.times, constants.base.chunk_tokens), constants.base)
    print(report(fitted, measurements.facts, measurements.left_out))
    check_physical(fitted.profile)
    partial = flags.out.with_name(f".{flags.out.name}.toml")
    partial.write_text(as_toml(fitted, measurements.facts, constants.sources))
    try:
        check_physical(load_profile(str(partial)))  # as whoever uses it will read it
        partial.rename(flags.out)
    finally:
        partial.unlink(missing_ok=True)
    print(f"wrote {flags.out}")
    if not fitted.good:
        worse = ", ".join(f"{group.group} {group.median:.0%}" for group in fitted.groups if group.median > GOAL)
        print(f"fit_profile: a median error above {GOAL:.0%}: {worse}", file=sys.stderr)
        return 1
    return 0


def main() -> int:
    """Exit status, see above."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("measurements", type=Path)
    parser.add_argument("--out", type=Path, required=True, metavar="NAME.toml", help="NAME is the profile's name")
    parser.add_argument("--base", default="", metavar="P", help="profile with the costs of a token, for other models")
    parser.add_argument(
        "--peak-flops", type=float, default=0.0, metavar="N", help="of one GPU (default: its data sheet)"
    )
    parser.add_argument("--mem-bytes-per-s", type=float, default=0.0, metavar="N", help="the same")
    parser.add_argument("--hbm-bytes", type=float, default=0.0, metavar="N", help="of one GPU (default as measured)")
    flags = parser.parse_args()
    if not re.fullmatch(r"[\w.-]+\.toml", flags.out.name) or not flags.out.parent.is_dir():
        parser.error(f"--out {flags.out}: a name ending in .toml, in a folder that exists")
    try:
        return run(flags)
    except (FitError, ClusterError) as error:
        print(f"fit_profile: not fitted: {error}", file=sys.stderr)
        return 1
    except (MeasurementError, UnknownProfileError, OSError) as error:
        print(f"fit_profile: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
