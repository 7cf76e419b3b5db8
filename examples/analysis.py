"""How fast does carbon dioxide rise at Mauna Loa, and does the rise itself grow?

Reads co2.csv from the current directory; writes trend.png, season.png and by_year.csv there.

    onehop run examples/analysis.py --file examples/co2.csv
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import statsmodels.api as sm

HOLDOUT_FROM = "1997-01-01"
BLUE, ORANGE, GREY = "#1f5a96", "#d9622b", "#8a8f98"

plt.rcParams.update(
    {
        "figure.dpi": 120,
        "savefig.bbox": "tight",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#e6e8eb",
        "axes.axisbelow": True,
        "axes.titlelocation": "left",
        "axes.titleweight": "bold",
        "legend.frameon": False,
    }
)

# Load and clean: dates are written as numbers, and some weeks have no measurement.
raw = pd.read_csv("co2.csv", parse_dates=["date"], date_format="%Y%m%d")
assert raw["date"].is_monotonic_increasing
assert raw["date"].is_unique
weekly = raw.set_index("date")["co2"].asfreq("W-SAT")
missing = weekly.isna()
gap_lengths = missing.groupby((~missing).cumsum()).sum()
clean = weekly.interpolate("time", limit=4, limit_area="inside").dropna()

# Group: one row per year. A year's mean needs most of its weeks, or the season would tilt it.
by_year = weekly.groupby(weekly.index.year).agg(weeks="count", mean="mean", low="min", high="max")
by_year.index.name = "year"
by_year.loc[by_year["weeks"] < 45, "mean"] = np.nan
by_year["growth"] = by_year["mean"].diff()
by_year["swing"] = by_year["high"] - by_year["low"]
by_year.round(2).to_csv("by_year.csv")
decades = by_year.groupby(by_year.index // 10 * 10)[["growth", "swing"]].mean()


# Fit: a quadratic trend plus the season as two harmonics, on measured weeks only. The errors of
# neighbouring weeks are alike, so the standard errors allow for correlation over a year.
def design(index: pd.DatetimeIndex) -> pd.DataFrame:
    years = (index - pd.Timestamp("1980-01-01")).days / 365.25
    columns = {"const": 1.0, "years": years, "years²": years**2}
    for k in (1, 2):
        columns[f"sin{k}"] = np.sin(2 * np.pi * k * years)
        columns[f"cos{k}"] = np.cos(2 * np.pi * k * years)
    return pd.DataFrame(columns, index=index)


measured = weekly.dropna()
training = measured[measured.index < HOLDOUT_FROM]
holdout = measured[measured.index >= HOLDOUT_FROM]
model = sm.OLS(training, design(training.index)).fit(cov_type="HAC", cov_kwds={"maxlags": 52})
rmse = float(np.sqrt(((holdout - model.predict(design(holdout.index))) ** 2).mean()))
low, high = model.conf_int().loc["years²"]
slope = {year: model.params["years"] + 2 * model.params["years²"] * (year - 1980) for year in (1960, 2000)}

# Figure 1: the record, the trend without the season, and how the forecast did.
trend = model.params[["const", "years", "years²"]] @ design(clean.index)[["const", "years", "years²"]].T
figure, (top, bottom) = plt.subplots(
    2, 1, figsize=(9, 6), sharex=True, height_ratios=[3, 1], gridspec_kw={"hspace": 0.08}
)
top.plot(clean.index, clean, color=BLUE, linewidth=0.9, label="weekly average")
top.plot(clean.index, trend, color=ORANGE, linewidth=1.8, label="fitted trend without the season")
top.axvspan(pd.Timestamp(HOLDOUT_FROM), clean.index[-1], color=GREY, alpha=0.15, linewidth=0)
top.annotate(
    "not used in the fit",
    (pd.Timestamp(HOLDOUT_FROM), 318),
    xytext=(-6, 0),
    textcoords="offset points",
    ha="right",
    color=GREY,
)
top.set_title("CO₂ at Mauna Loa rises, and the rise gets steeper")
top.set_ylabel("ppm")
top.legend(loc="upper left")
residuals = measured - model.predict(design(measured.index))
bottom.plot(residuals.index, residuals, color=BLUE, linewidth=0.6)
bottom.axvspan(pd.Timestamp(HOLDOUT_FROM), clean.index[-1], color=GREY, alpha=0.15, linewidth=0)
bottom.axhline(0, color="black", linewidth=0.8)
bottom.set_ylabel("measured minus fit")
bottom.margins(x=0.01)
figure.align_ylabels()
figure.savefig("trend.png")

# Figure 2: the season by decade, and the growth of each year.
seasonal = pd.DataFrame({"value": clean - trend, "month": clean.index.month})
seasonal["decade"] = clean.index.year // 10 * 10
cycle = (
    seasonal[seasonal["decade"].between(1960, 1990)].groupby(["decade", "month"])["value"].mean().unstack(0)
)
cycle -= cycle.mean()
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), gridspec_kw={"wspace": 0.22})
for decade, color in zip(
    cycle.columns, plt.get_cmap("viridis")(np.linspace(0.05, 0.8, cycle.shape[1])), strict=True
):
    left.plot(cycle.index, cycle[decade], color=color, marker="o", markersize=3.5, label=f"{decade}s")
left.axhline(0, color="black", linewidth=0.8)
left.set_xticks(range(1, 13), list("JFMAMJJASOND"))
left.set_title("The season: high in May, low in autumn")
left.set_ylabel("ppm from the year's mean")
left.legend()
growth = by_year["growth"].dropna()
right.bar(growth.index, growth, color=BLUE, alpha=0.75, width=0.8)
for decade, mean in decades["growth"].loc[1960:1990].items():
    right.hlines(mean, decade - 0.4, decade + 9.4, color=ORANGE, linewidth=2.2)
    right.annotate(f"{mean:.2f}", (decade + 4.5, 3.05), ha="center", color=ORANGE, weight="bold")
right.set_ylim(0, 3.3)
right.set_title("Growth a year, and each decade's mean")
right.set_ylabel("ppm a year")
right.grid(axis="x", visible=False)
figure.savefig("season.png")

gaps = f"{missing.sum()} in {(gap_lengths > 0).sum()} gaps, the longest of {gap_lengths.max()}"
print(f"""\
CO₂ at Mauna Loa, {weekly.index[0]:%B %Y} to {weekly.index[-1]:%B %Y}
  weeks: {len(weekly)}, without a measurement: {gaps}
  growth of the trend: {slope[1960]:.2f} ppm a year in 1960, {slope[2000]:.2f} in 2000
  it grows by {2 * model.params["years²"]:.4f} ppm a year each year (95 %: {2 * low:.4f} to {2 * high:.4f})
  fit until {pd.Timestamp(HOLDOUT_FROM).year - 1}: R² {model.rsquared:.4f}
  error of its forecast for the {len(holdout)} weeks after that: {rmse:.2f} ppm (RMS)

Means by decade, ppm a year and ppm within a year:
{decades.loc[1960:1990].round(2).to_string()}

Written: trend.png, season.png, by_year.csv""")
