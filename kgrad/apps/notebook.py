"""The pages that results show in a notebook: a picture, then what a reader needs to know first.

`kgrad.records.notebook.Shown` calls `html`. Jinja escapes every value: names in a file may be
anything.
"""

from collections import Counter
from functools import cache, singledispatch
from typing import Any

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup

from kgrad.apps.findings import first_findings, heading
from kgrad.diagnosis import Diagnosis
from kgrad.figures.static.pictures import (
    picture_of_history,
    picture_of_prediction,
    picture_of_sweep,
    picture_of_trials,
)
from kgrad.figures.sweep_maps import varying_fields
from kgrad.records.history import GradientHistory
from kgrad.records.notebook import Shown
from kgrad.records.prediction import Prediction
from kgrad.records.statistics import MEAN_ABS
from kgrad.records.summary import summarize_prediction
from kgrad.records.sweep import Sweep
from kgrad.records.trials import MEANING_OF_SKILL, Trials, skill_text

# Colors are the page's own, at some strength, so that they fit a light and a dark one.
_PAGE = """\
<div class="kgrad">
<style>
.kgrad { max-width: 44rem; line-height: 1.45; }
.kgrad p { margin: 0.4em 0; }
.kgrad svg { display: block; }
.kgrad .quiet { opacity: 0.75; font-size: 0.9em; }
.kgrad .critical, .kgrad .warning { border-left: 4px solid #d55e00; padding-left: 0.6em; }
.kgrad .warning { border-color: #e69f00; }
.kgrad .healthy { border-left: 4px solid #009e73; padding-left: 0.6em; }
.kgrad .wide { overflow-x: auto; }
.kgrad table { color: inherit; border-collapse: collapse; font-size: 0.9em; }
.kgrad th, .kgrad td { text-align: left; vertical-align: top; padding: 0.2em 0.8em 0.2em 0; }
.kgrad th { border-bottom: 1px solid; }
.kgrad .number { text-align: right; white-space: nowrap; }
</style>
{% block body %}{% endblock %}
</div>
"""

_HISTORY = """\
{% extends "page" %}{% block body %}
{{ picture }}
<p><b>{{ records }} of {{ layers }} layers</b>{% if loss %}; loss {{ loss }}{% endif %}</p>
<p class="quiet">{{ facts }}</p>
<p class="quiet">Draw it: <code>kgrad.visualize_gradients(history, "…")</code>. What is wrong:
<code>kgrad.diagnose(history)</code>.</p>
{% endblock %}
"""

_DIAGNOSIS = """\
{% extends "page" %}{% block body %}
{{ picture }}
{% if diagnosis.cause is none %}
<p class="{{ 'warning' if diagnosis.missing else 'healthy' }}"><b>No findings{{
 ", but " ~ diagnosis.missing ~ "." if diagnosis.missing
 else ": the gradients look healthy." }}</b></p>
{% endif %}
{% for finding in [diagnosis.cause] + diagnosis.also_wrong|list if finding is not none %}
<div class="{{ finding.severity }}">
<p><b>{{ heading(finding, loop.index0) }}</b></p>
<p>{{ finding.evidence[0] }}<br>{{ finding.explanation }}</p>
<p>→ <b>{{ finding.remedies[0] }}</b></p>
{% if loop.first and diagnosis.confidence %}
<p class="quiet">{{ diagnosis.confidence }}</p>
{% endif %}
</div>
{% endfor %}
{% if diagnosis.consequences %}
<p>May follow from it:</p>
<ul>
{% for finding in diagnosis.consequences %}
<li>{{ finding.rule.replace("_", " ") }} in {{ finding.where() }}: {{ finding.evidence[0] }}</li>
{% endfor %}
</ul>
{% endif %}
{% for note in diagnosis.notes %}
<p class="quiet">Note: {{ note.evidence[0] }} {{ note.explanation }}</p>
{% endfor %}
{% if diagnosis.cause is not none %}
<p class="quiet">{{ diagnosis.missing ~ ". " if diagnosis.missing }}All evidence and remedies:
<code>print(diagnosis.details)</code>.</p>
{% endif %}
{% endblock %}
"""

_TRIALS = """\
{% extends "page" %}{% block body %}
{{ picture }}
<p><b>{{ "Best: " ~ trials.best.name ~ "; " ~ trials.best.note ~ "." if trials.best
 else "Nothing that was tried helps." if trials|length > 1 else "Nothing was tried." }}</b></p>
<div class="wide"><table>
<tr><th>trial</th><th>change</th>
{% if trials.metric %}<th class="number">skill</th>{% endif %}
<th class="number">loss</th><th>result</th></tr>
{% for trial in trials %}
<tr><td>{{ trial.name }}</td><td>{{ trial.change }}</td>
{% if trials.metric %}<td class="number">{{ skill_text(trial.skill) }}</td>{% endif %}
<td class="number">{{ "%.3g"|format(trial.loss) }}</td><td>{{ trial.note }}</td></tr>
{% endfor %}
</table></div>
{% if trials.metric %}
<p class="quiet">{{ MEANING_OF_SKILL }} Computed from {{ trials.metric }}.</p>
{% endif %}
{% if trials.not_possible %}
<details class="quiet"><summary>not tried: {{ trials.not_possible|length }}</summary><ul>
{% for name, reason in trials.not_possible %}<li>{{ name }}: {{ reason }}</li>{% endfor %}
</ul></details>
{% endif %}
{% endblock %}
"""

_PREDICTION = """\
{% extends "page" %}{% block body %}
{{ picture }}
<p><b>Expected before training</b>: mean |gradient| {{ "%.2g"|format(predicted_first) }} in the
first hidden layer, {{ "%.2g"|format(predicted_last) }} in the last one, a ratio of
{{ "%.2g"|format(predicted_ratio) }}.</p>
<p class="quiet">The band holds 95 % of networks. Compare it with a measurement:
<code>kgrad.plot_prediction(history, prediction)</code>.</p>
{% endblock %}
"""

_SWEEP = """\
{% extends "page" %}{% block body %}
{{ picture }}
<p><b>{{ status }}</b>{{ ", {:,} left".format(status.left) if status.left }}</p>
{% if varying %}
<p class="quiet">{{ varying }}</p>
{% endif %}
{% if findings %}
<div class="wide"><table>
<tr><th class="number">runs</th><th>first finding</th></tr>
{% for finding, count in findings %}
<tr><td class="number">{{ "{:,}".format(count) }}</td><td>{{ finding }}</td></tr>
{% endfor %}
</table></div>
{% endif %}
{% for error, count in errors %}
<p class="critical">{{ "{:,}".format(count) }} failed: {{ error }}</p>
{% endfor %}
{% if errors %}
<p class="quiet">All tracebacks: <code>sweep.failures()</code>.</p>
{% endif %}
<p class="quiet">Draw it: <code>kgrad.plot_sweep(sweep, "{{ x }}", "{{ y }}")</code>. The table:
<code>sweep.to_frame()</code>.</p>
{% endblock %}
"""
_MOST_ERRORS = 5  # kinds of errors
_LONGEST = 200  # letters of an error


@singledispatch
def html(result: Shown) -> str:
    """Return the page of a result.

    Raises:
        TypeError: if there is no page for such a result.
    """
    raise TypeError(f"a notebook has no page for {type(result).__name__}")


@html.register
def _(history: GradientHistory) -> str:
    loss = history.logs.get("loss")
    names = ("model", "optimizer", "loss", "keras", "tensorflow", "jax", "torch")
    known = [f"{name} {history.metadata[name]}" for name in names if history.metadata.get(name)]
    return _page(
        "history",
        picture=_drawn(history),
        records=_counted(len(history), "record"),
        layers=len(history.layers),
        loss=""
        if loss is None
        else " → ".join(f"{loss[i]:.4g}" for i in dict.fromkeys((0, len(loss) - 1))),
        facts="; ".join(known),
    )


@html.register
def _(diagnosis: Diagnosis) -> str:
    cause, picture = diagnosis.cause, Markup("")
    if diagnosis.history is not None:
        picture = _drawn(diagnosis.history, *(cause.layers, cause.first_epoch) if cause else ())
    return _page("diagnosis", picture=picture, diagnosis=diagnosis)


@html.register
def _(trials: Trials) -> str:
    return _page("trials", picture=_svg(picture_of_trials, trials), trials=trials)


@html.register
def _(prediction: Prediction) -> str:
    picture = _svg(picture_of_prediction, prediction)
    return _page("prediction", picture=picture, **summarize_prediction(prediction))


@html.register
def _(sweep: Sweep) -> str:
    frame = sweep.to_frame()
    fields = varying_fields(frame)
    x, y = fields if len(fields) == 2 else ("learning_rate", "num_layers")
    is_drawn = len(fields) == 2 and "loss_last" in frame.columns  # of a run that is finished
    errors = Counter(str(error)[:_LONGEST] for error in frame["error"] if error)
    return _page(
        "sweep",
        picture=_svg(picture_of_sweep, frame, x, y) if is_drawn else Markup(""),
        status=sweep.status(),
        varying="; ".join(f"{field}: {count:,} values" for field, count in fields.items()),
        findings=list(first_findings(frame).items()) if len(frame) else [],
        errors=errors.most_common(_MOST_ERRORS),
        x=x,
        y=y,
    )


def _drawn(history: GradientHistory, *framed: Any) -> Markup:
    """Return the picture of a history; none if there is nothing to draw."""
    if not len(history) or MEAN_ABS.name not in history.statistics:
        return Markup("")
    return _svg(picture_of_history, history, *framed)


def _svg(draw: Any, *given: Any) -> Markup:
    """Return a picture, in which matplotlib has escaped all names."""
    return Markup(draw(*given))


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _heading(finding: Any, place: int) -> str:
    text = heading(finding, place=place)
    return text[0].upper() + text[1:]


@cache
def _pages() -> Environment:
    pages = {
        "page": _PAGE,
        "history": _HISTORY,
        "diagnosis": _DIAGNOSIS,
        "trials": _TRIALS,
        "prediction": _PREDICTION,
        "sweep": _SWEEP,
    }
    environment = Environment(
        loader=DictLoader(pages),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "heading": _heading,
        "skill_text": skill_text,
        "MEANING_OF_SKILL": MEANING_OF_SKILL,
    }
    return environment


def _page(name: str, **content: Any) -> str:
    return _pages().get_template(name).render(content)
