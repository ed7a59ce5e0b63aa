"""The command line: ``netcontagion demo``, ``run``, ``sweep``, ``rank``, ``buffers``, ``data``.

Errors are one message, never a traceback.
"""

from __future__ import annotations

import argparse
import functools
import logging
import math
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netcontagion.errors import ContagionError, Problem, SchemaError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from netcontagion.margining import CascadeResult
    from netcontagion.network import ExposureNetwork, Shock

__all__ = ["main"]

_TABLES = ("rounds", "events", "accounts", "traders", "exchanges", "assets", "markets", "losses")
_BUFFER_TABLES = ("buffers", "scenarios", "outcomes", "required", "crossings", "tried", "sizing", "allocation")
_LABEL_COLUMNS = ("trader", "exchange", "asset", "side", "account")
_MARKET_COLUMNS = ("loan_to_value", "liquidation_threshold", "liquidation_bonus", "close_factor", "protocol_fee")
_RUN_HELP = """\
FOLDER holds one CSV file per table (balances.csv, markets.csv, accounts.csv, assets.csv, ...), as net.save writes it.

CSV is one long table with the columns trader, exchange, asset, side (collateral or debt), amount (units) or value
(money), price, and optionally account and underlying (what the price follows). Margin parameters come from columns of
the same file (liquidation_threshold, liquidation_bonus, close_factor), or from --preset.

examples:
  netcontagion run positions.csv --preset aave_v3_2023_06 --rulebook aave_v3 --shock ETH=-0.3 --out result
  netcontagion run my_network/ --shock ETH=-0.3 --shock WBTC=-0.2 --depth 0.5 --out result
"""
_SWEEP_HELP = """\
SCENARIOS is a TOML file: what to run on, and which shocks. Tables of shocks are crossed, every one with every other:
[[scenario]], [grid], [quasi_random], [correlated], [historical], [bootstrap] and [defaults], with the arguments of the
functions of netcontagion.scenarios. DIR gets table.csv (a row per scenario), nodes.csv (expected loss, default
probability and tail loss of every node) and summary.txt. A sweep that was interrupted goes on where it was.

example:
  [sweep]
  network = "my_network/"            # or a CSV, with preset = and rulebook =; or a bundled data set: "market"
  seed = 7                           # optional; also: model = (clears instead), options = {...}, outputs = [...]

  [grid]
  price = {ETH = [-0.1, -0.2, -0.3]}
  family = true
  depth = [1.0, 0.5]

  netcontagion sweep scenarios.toml --out result --jobs 4
"""
_RANK_HELP = """\
SOURCE is a folder of tables or a CSV as for run, or a bundled data set (netcontagion data list). Without --by: the
measures that say something in money, or about who depends on whom, and are quick. docs/ranking.md lists them all.

examples:
  netcontagion rank market
  netcontagion rank my_network/ --by pagerank,overlap --shock ETH=-0.3 --top 20 --out ranking.csv
"""
_BUFFERS_HELP = """\
NETWORK is a folder of tables or a CSV file as for "netcontagion run", or a bundled data set. Tools are trader_margin,
exchange_equity, insurance_fund, liquidation_threshold, liquidation_bonus, close_factor and depth. DIR gets buffers.csv
(what each held back and what a unit more of it saves), scenarios.csv, summary.txt, and required.csv, crossings.csv,
tried.csv (with --target), sizing.csv (with --quantile), allocation.csv (with --budget).

examples:
  netcontagion buffers market --shock ETH=-0.3 --tool insurance_fund --target 0 --out result
  netcontagion buffers my_network/ --scenarios scenarios.toml --tool insurance_fund=Lend-1,Lend-2 --tool depth \\
      --target bad_debt=1e6 --quantile 0.95 --out result
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; default those of the process.

    Returns
    -------
    int
        0 done, 1 the input or the run has a problem (told on stderr), 2 wrong usage, 130 interrupted.
    """
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO if arguments.verbose else logging.WARNING, format="%(name)s: %(message)s")
    os.environ.setdefault("MPLBACKEND", "Agg")
    command: Callable[[argparse.Namespace], None] = arguments.command
    try:
        command(arguments)
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except KeyboardInterrupt:
        print("netcontagion: interrupted", file=sys.stderr)
        return 130
    except (ContagionError, OSError, ValueError) as error:
        print(f"netcontagion: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    import netcontagion

    parser = argparse.ArgumentParser(
        prog="netcontagion",
        description="Network contagion in margined markets: margin-call cascades, clearing and contagion maps.",
    )
    parser.add_argument("--version", action="version", version=f"netcontagion {netcontagion.__version__}")
    parser.add_argument("--verbose", action="store_true", help="say what is being done")
    commands = parser.add_subparsers(title="commands", required=True, metavar="{demo,run,sweep,rank,buffers,data}")
    demo = commands.add_parser("demo", help="run ETH -30 %% on the bundled market and draw the contagion map")
    demo.add_argument(
        "--out", type=Path, default=Path("contagion_map.png"), help="picture to write (default: %(default)s)"
    )
    demo.set_defaults(command=_demo)
    _add_run(commands)
    _add_sweep(commands)
    _add_rank(commands)
    _add_buffers(commands)
    _add_data(commands)
    return parser


def _add_run(commands: Any) -> None:
    raw = argparse.RawDescriptionHelpFormatter
    run = commands.add_parser("run", help="run a cascade on your own tables", epilog=_RUN_HELP, formatter_class=raw)
    run.add_argument("source", type=Path, metavar="FOLDER_OR_CSV", help="folder of tables, or one CSV file")
    _add_shock(run)
    run.add_argument("--priority", default="worst_first", choices=("worst_first", "best_first", "random", "pro_rata"))
    run.add_argument("--seed", type=int, help="for --priority random")
    run.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for summary, map and tables")
    run.set_defaults(command=_run)


def _add_shock(command: argparse.ArgumentParser) -> None:
    """Add what shocks a network, and what a CSV does not say."""
    command.add_argument(
        "--shock", action="append", default=[], type=_price, metavar="ASSET=CHANGE", help="price change, -0.3 is -30 %%"
    )
    command.add_argument(
        "--only", action="store_true", help="move named assets alone, not what follows them (stETH follows ETH)"
    )
    command.add_argument("--depth", type=float, metavar="FACTOR", help="multiply all depths")
    command.add_argument("--default", action="append", default=[], metavar="TRADER", help="trader that fails")
    command.add_argument("--outage", action="append", default=[], metavar="EXCHANGE", help="exchange that stops")
    command.add_argument("--preset", metavar="NAME", help="dated margin parameters of a CSV, like aave_v3_2023_06")
    command.add_argument("--rulebook", metavar="NAME", help="rulebook of all exchanges of a CSV (default: lending)")


def _add_sweep(commands: Any) -> None:
    raw = argparse.RawDescriptionHelpFormatter
    sweep = commands.add_parser("sweep", help="run many scenarios of a file", epilog=_SWEEP_HELP, formatter_class=raw)
    sweep.add_argument("scenarios", type=Path, metavar="SCENARIOS", help="TOML file of scenarios")
    sweep.add_argument("--jobs", type=int, metavar="N", help="processes; -1: as many as processors (default: one)")
    sweep.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for tables, summary, checkpoint")
    sweep.set_defaults(command=_sweep)


def _add_rank(commands: Any) -> None:
    raw = argparse.RawDescriptionHelpFormatter
    rank = commands.add_parser("rank", help="rank the nodes of a network", epilog=_RANK_HELP, formatter_class=raw)
    rank.add_argument("source", metavar="SOURCE", help="folder of tables, CSV file, or bundled data set")
    rank.add_argument("--by", action="append", metavar="MEASURE,...", help="measures (default: see below)")
    _add_shock(rank)
    rank.add_argument("--jobs", type=int, metavar="N", help="processes; -1: as many as processors (default: one)")
    rank.add_argument("--top", type=_count, default=10, metavar="N", help="rows to show of each kind (default: 10)")
    rank.add_argument("--out", type=Path, metavar="FILE", help="CSV file for the whole table")
    rank.set_defaults(command=_rank)


def _add_buffers(commands: Any) -> None:
    raw = argparse.RawDescriptionHelpFormatter
    buffers = commands.add_parser(
        "buffers", help="measure buffers, and how large they have to be", epilog=_BUFFERS_HELP, formatter_class=raw
    )
    buffers.add_argument("source", type=Path, metavar="NETWORK", help="folder of tables, CSV file or data set")
    _add_shock(buffers)
    buffers.add_argument("--scenarios", type=Path, metavar="FILE", help="TOML file of scenarios, instead of a shock")
    buffers.add_argument(
        "--tool", action="append", default=[], metavar="TOOL[=NODE,...]", help="buffer (default: insurance_fund)"
    )
    buffers.add_argument(
        "--target", action="append", default=[], type=_limit, metavar="[OUTCOME=]LIMIT", help="largest outcome allowed"
    )
    buffers.add_argument("--quantile", type=float, metavar="SHARE", help="of scenarios that meet the target")
    buffers.add_argument("--budget", type=float, metavar="MONEY", help="to spend on the tools")
    buffers.add_argument(
        "--outcome", default="spillover", metavar="NAME", help="what is to fall (default: %(default)s)"
    )
    buffers.add_argument(
        "--grid", type=int, default=17, metavar="N", help="sizes that are tried (default: %(default)s)"
    )
    buffers.add_argument("--jobs", type=int, metavar="N", help="processes; -1: as many as processors (default: one)")
    buffers.add_argument("--seed", type=int, help="of runs that take one")
    buffers.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for tables and summary")
    buffers.set_defaults(command=_buffers)


def _add_data(commands: Any) -> None:
    data = commands.add_parser("data", help="list data sets, or download one")
    actions = data.add_subparsers(title="actions", required=True, metavar="{list,fetch}")
    actions.add_parser("list", help="bundled data sets and downloads, with licence and source").set_defaults(
        command=_list
    )
    fetch = actions.add_parser("fetch", help="download a data set and verify it")
    fetch.add_argument("name", metavar="NAME")
    fetch.set_defaults(command=_fetch)


def _price(text: str) -> tuple[str, float]:
    name, sign, change = text.partition("=")
    try:
        value = float(change)
    except ValueError:
        value = float("nan")
    if not sign or not name.strip() or math.isnan(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not ASSET=CHANGE; ETH=-0.3 is ETH down 30 %")
    return name.strip(), value


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of rows, at least 1")
    return int(text)


def _limit(text: str) -> tuple[str, float]:
    name, sign, limit = text.rpartition("=")
    try:
        value = float(limit)
    except ValueError:
        value = float("nan")
    if (sign and not name.strip()) or math.isnan(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not [OUTCOME=]LIMIT; bad_debt=1e6 is bad debt up to a million")
    return name.strip() or "spillover", value


# commands -----------------------------------------------------------------------------------------------------------


def _demo(arguments: argparse.Namespace) -> None:
    import netcontagion as nc

    run = nc.cascade(nc.datasets.load("market"), nc.Shock.price({"ETH": -0.30}, family=True))
    run.check()
    print(run)
    _draw(run, arguments.out)
    print(f"  map        {arguments.out}")


def _run(arguments: argparse.Namespace) -> None:
    import netcontagion as nc

    net = _network(arguments.source, arguments.preset, arguments.rulebook)
    shock = _given_shock(arguments, net)
    run = nc.cascade(net, shock, priority=arguments.priority, seed=arguments.seed)
    run.check()
    print(run)
    _write(run, arguments.out)
    print(f"  written    {arguments.out}{os.sep} summary.txt, contagion_map.png, {len(_TABLES)} tables (.csv)")


def _sweep(arguments: argparse.Namespace) -> None:
    import netcontagion as nc
    from netcontagion import scenarios

    settings = scenarios.settings(arguments.scenarios)
    _writable(arguments.out)
    net = _network_of_sweep(settings, arguments.scenarios.parent)
    shocks = scenarios.read(arguments.scenarios, net)
    shocks.check(net)
    found = nc.sweep(
        {Path(settings["network"]).stem: net},
        shocks,
        run=_engine(settings),
        outputs=settings.get("outputs"),
        n_jobs=arguments.jobs,
        seed=settings.get("seed"),
        checkpoint=arguments.out / "checkpoint",
    )
    print(found)
    _whole_file(arguments.out / "table.csv", found.table.to_csv)
    _whole_file(arguments.out / "nodes.csv", found.nodes.to_csv)
    _whole_file(arguments.out / "summary.txt", lambda fresh: fresh.write_text(f"{found!r}\n", encoding="utf-8"))
    print(f"  written    {arguments.out}{os.sep} summary.txt, table.csv, nodes.csv")


def _buffers(arguments: argparse.Namespace) -> None:
    import netcontagion as nc
    from netcontagion import scenarios

    _writable(arguments.out)
    net = _named_network(Path(), str(arguments.source), arguments.preset, arguments.rulebook)
    if arguments.scenarios is not None:
        if any((arguments.shock, arguments.depth, arguments.default, arguments.outage)):
            raise ValueError("--scenarios stands for all shocks; leave out --shock, --depth, --default and --outage")
        shocks: Any = scenarios.read(arguments.scenarios, net)
    else:
        shocks = _given_shock(arguments, net)
    report = nc.buffers(
        net,
        shocks,
        tools=_tools(arguments.tool, net),
        target=dict(arguments.target) or None,
        quantile=arguments.quantile,
        budget=arguments.budget,
        outcome=arguments.outcome,
        grid=arguments.grid,
        n_jobs=arguments.jobs,
        seed=arguments.seed,
    )
    print(report)
    tables = {name: getattr(report, name) for name in _BUFFER_TABLES}
    written = [name for name, table in tables.items() if table is not None]
    for name in written:
        _whole_file(arguments.out / f"{name}.csv", tables[name].to_csv)
    _whole_file(arguments.out / "summary.txt", lambda fresh: fresh.write_text(f"{report!r}\n", encoding="utf-8"))
    print(f"  written    {arguments.out}{os.sep} summary.txt, {', '.join(f'{name}.csv' for name in written)}")


def _tools(texts: list[str], net: ExposureNetwork) -> dict[str, Any]:
    """Read tools with the nodes they are named for; their labels as those of the network."""
    found: dict[str, Any] = {}
    known = [label for kind in ("traders", "exchanges", "assets") for label in net.labels(kind).tolist()]
    for text in texts or ["insurance_fund"]:
        name, sign, nodes = text.partition("=")
        if name.strip() in found:
            raise ValueError(f"--tool names {name.strip()!r} twice; give its nodes once, parted by commas")
        found[name.strip()] = [_label(node.strip(), known) for node in nodes.split(",")] if sign else None
    return found


def _engine(settings: dict[str, Any]) -> Callable[..., Any]:
    """Return what runs a scenario: clearing where a model is named, else the cascade."""
    import netcontagion as nc

    options = settings.get("options", {})
    if "model" in settings:
        return functools.partial(nc.clear, model=settings["model"], **options)
    return functools.partial(nc.cascade, **options) if options else nc.cascade


def _network_of_sweep(settings: dict[str, Any], folder: Path) -> ExposureNetwork:
    """Load the network a file names: from its folder, else a bundled data set."""
    return _named_network(folder, settings["network"], settings.get("preset"), settings.get("rulebook"))


def _named_network(folder: Path, name: str, preset: str | None, rulebook: str | None) -> ExposureNetwork:
    """Load a network by the name of a folder or a CSV, else of a bundled data set."""
    from netcontagion import datasets

    source = folder / name
    if source.exists() or name not in set(datasets.available()["name"]):
        return _network(source, preset, rulebook)
    return datasets.load(name)


def _rank(arguments: argparse.Namespace) -> None:
    import netcontagion as nc

    if arguments.out is not None:
        _writable(arguments.out.parent)
    net = _named_network(Path(), arguments.source, arguments.preset, arguments.rulebook)
    by = None if arguments.by is None else [name.strip() for part in arguments.by for name in part.split(",")]
    ranking = nc.rank(net, by, shock=_shock(arguments, net), n_jobs=arguments.jobs)
    first = ranking.groupby("kind").head(arguments.top).sort_values("kind", kind="stable")
    print(first.to_string(float_format="{:.4g}".format))
    for name, why in ranking.attrs["left_out"].items():
        print(f"  left out   {name}: {why}")
    for name, why in ranking.attrs["all_zero"].items():
        print(f"  all 0      {name}: {why}")
    if arguments.out is not None:
        _whole_file(arguments.out, ranking.to_csv)
        print(f"  written    {arguments.out} ({len(ranking):,} nodes)")


def _writable(folder: Path) -> None:
    """Refuse a folder that nothing can be written to, before any work."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ContagionError(f"{folder} cannot be written: {error.strerror}; name another folder") from error


def _list(_: argparse.Namespace) -> None:
    import netcontagion as nc

    for name, row in nc.datasets.available().set_index("name").iterrows():
        print(f"{name}")
        for column, value in row.items():
            print(f"    {column:<8} {value}")


def _fetch(arguments: argparse.Namespace) -> None:
    import netcontagion as nc

    table = nc.datasets.available().set_index("name")
    files = nc.datasets.fetch(arguments.name)
    for name, path in files.items():
        print(f"{name}  {path}")
    about = table.loc[arguments.name]
    print(f"licence of {arguments.name}: {about['licence']}; source: {about['source']}")


def _shock(arguments: argparse.Namespace, net: ExposureNetwork) -> Shock:
    from netcontagion.network import Shock

    shock = Shock()
    known = [*net.labels("assets").tolist(), *filter(None, net.columns("assets")["underlying"].tolist())]
    moves = [(_label(name, known), change) for name, change in arguments.shock]
    named = [str(name) for name, _ in moves]
    if len(set(named)) < len(named):
        raise ValueError(f"--shock names an asset twice ({', '.join(named)}); give one change per asset")
    if arguments.shock:
        shock += Shock.price(dict(moves), family=not arguments.only)
    if arguments.depth is not None:
        shock += Shock.depth(arguments.depth)
    if arguments.default:
        shock += Shock.default(*_labels(arguments.default, net, "traders"))
    if arguments.outage:
        shock += Shock.outage(*_labels(arguments.outage, net, "exchanges"))
    return shock


def _given_shock(arguments: argparse.Namespace, net: ExposureNetwork) -> Shock:
    """Read the shock, which must do something."""
    from netcontagion.network import Shock

    shock = _shock(arguments, net)
    if shock == Shock():
        raise ValueError("no shock given; for example --shock ETH=-0.3")
    return shock


def _labels(texts: list[str], net: ExposureNetwork, kind: str) -> list[Any]:
    known = net.labels(kind).tolist()
    return [_label(text, known) for text in texts]


def _label(text: str, known: list[Any]) -> Any:
    """Find the label an argument means: the text itself, else the whole number written so."""
    if text in known:
        return text
    return next((label for label in known if isinstance(label, int) and str(label) == text), text)


def _network(source: Path, preset: str | None, rulebook: str | None) -> ExposureNetwork:
    import netcontagion as nc

    if source.is_dir():
        if preset or rulebook:
            raise ValueError("preset and rulebook are for a CSV; a folder says both in markets.csv and exchanges.csv")
        return nc.load(source)
    if not source.is_file():
        raise ContagionError(f"{source} does not exist; name a folder of tables or a CSV file")
    return _network_of_csv(source, preset, rulebook)


def _network_of_csv(source: Path, preset: str | None, rulebook: str | None) -> ExposureNetwork:
    from netcontagion import builders

    table = _read_csv(source)
    own = [name for name in _MARKET_COLUMNS if name in table]
    net = builders.from_table(
        table.drop(columns=[*own, "price", "underlying"], errors="ignore"),
        trader="trader",
        exchange="exchange",
        asset="asset",
        side="side",
        account="account" if "account" in table else None,
        amount="amount" if "amount" in table else None,
        value="value" if "value" in table else None,
        markets=_markets(table, own, preset),
        prices=table.groupby(["exchange", "asset"])["price"].first(),
        exchanges=None if rulebook is None else _ruled(table, rulebook),
    )
    return net.replace(assets=net.assets.assign(underlying=_underlyings(table, net.labels("assets"), preset)))


def _read_csv(source: Path) -> Any:
    """Read the table; columns that are missing, unknown or at odds with themselves are one error."""
    import pandas as pd

    labels = dict.fromkeys((*_LABEL_COLUMNS, "underlying"), "str")
    try:
        table = pd.read_csv(source, dtype=labels, keep_default_na=False, na_values=[""])
    except (ValueError, UnicodeDecodeError) as error:
        raise ContagionError(f"{source} cannot be read as CSV: {error}") from error
    problems = list(_column_problems(table))
    if not problems:
        for name in ("price", *_MARKET_COLUMNS):
            problems += _contradictions(table, ["exchange", "asset"], name)
        problems += _contradictions(table, ["asset"], "underlying")
    if problems:
        raise SchemaError(problems)
    return table


def _column_problems(table: Any) -> Iterator[Problem]:
    needed = [name for name in _LABEL_COLUMNS if name != "account"] + ["price"]
    needed += [] if "value" in table else ["amount"]
    known = (*_LABEL_COLUMNS, "amount", "value", "price", "underlying", *_MARKET_COLUMNS)
    spare = [name for name in table if name not in known]
    for name in [name for name in needed if name not in table]:
        near = nearest(name, spare)
        cure = f"rename {near[0]!r}" if near else f"the columns here are {', '.join(map(repr, table))}"
        yield Problem("CSV", name, None, "the column is missing", ", ".join(known), cure)
    for name in spare:
        near = nearest(name, known)
        cure = f"did you mean {near[0]!r}?" if near else "leave it out"
        yield Problem("CSV", str(name), None, "the column is unknown", ", ".join(known), cure)
    if not len(table):
        yield Problem("CSV", None, None, "the table is empty", "at least one row", "give rows")


def _contradictions(table: Any, keys: list[str], name: str) -> list[Problem]:
    """List the rows that give a market (or an asset) another value than the first row of it."""
    if name not in table:
        return []
    first = table.groupby(keys)[name].transform("first")
    rows = table.index[(table[name] != first) & table[name].notna() & first.notna()]
    cure = f"one {name} per {' and '.join(keys)}; correct the row"
    return [Problem("CSV", name, int(row), repr(table[name][row]), f"{first[row]!r} as above", cure) for row in rows]


def _underlyings(table: Any, assets: Any, preset: str | None) -> Any:
    from netcontagion.network import preset_table

    known = (
        {} if preset is None else {name: row.get("underlying") for name, row in preset_table(preset)["assets"].items()}
    )
    if "underlying" in table:
        known |= table.dropna(subset="underlying").groupby("asset")["underlying"].first().to_dict()
    return [known.get(name) for name in assets]


def _ruled(table: Any, rulebook: str) -> dict[str, Any]:
    names = table["exchange"].dropna().unique()
    return {"exchange": names, "rulebook": [rulebook] * len(names)}


def _markets(table: Any, own: list[str], preset: str | None) -> Any:
    """Margin parameters by exchange and asset: of the preset, and over them those of the table's own columns."""
    import pandas as pd

    from netcontagion import builders

    given = table.groupby(["exchange", "asset"])[own].first() if own else None
    if preset is None:
        return pd.DataFrame({"asset": table["asset"].dropna().unique()}) if given is None else given
    parts = [builders.preset_markets(preset, exchange=name) for name in table["exchange"].dropna().unique()]
    rows = pd.concat(parts)
    rows = rows[rows.index.get_level_values("asset").isin(table["asset"])]
    return rows if given is None else given.combine_first(rows)


# files --------------------------------------------------------------------------------------------------------------


def _draw(run: CascadeResult, path: Path) -> None:
    import matplotlib.pyplot as plt

    import netcontagion as nc

    figure = nc.contagion_map(run).get_figure(root=True)
    if figure is None:
        raise ContagionError("the map has no figure to save")
    _whole_file(path, lambda fresh: figure.savefig(fresh, dpi=200, format=path.suffix.lstrip(".") or "png"))
    plt.close(figure)


def _whole_file(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    os.close(handle)
    fresh = Path(name)
    try:
        write(fresh)
        fresh.chmod(0o644)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def _write(run: CascadeResult, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in _TABLES:
        table = getattr(run, name)
        _whole_file(folder / f"{name}.csv", lambda fresh, table=table: table.to_csv(fresh))  # type: ignore[misc]
    text = f"{run!r}\n\n{run.summary().to_string()}\n"
    _whole_file(folder / "summary.txt", lambda fresh: fresh.write_text(text, encoding="utf-8"))
    _draw(run, folder / "contagion_map.png")


if __name__ == "__main__":
    raise SystemExit(main())
