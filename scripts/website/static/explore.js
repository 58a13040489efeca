// The explorer of a kept ranking: what `rank.explore()` shows, without a kernel. A box `.dnb-live` holds the ranking
// as JSON, made by `kept_ranking` of scripts/website/live.py; nothing is fetched.
{
  const powers = [0, .5, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, Infinity]
  const z90 = 1.6448536269514722 // half the width of a 90 % interval, in standard errors

  // Weights, as distill_nb.weights computes them

  function normalized(scores, norm) {
    const least = norm == "minmax" ? Math.min(...scores) : 0
    const e = scores.map(s => s - least)
    const best = Math.max(...e)
    return e.map(s => best > 0 ? Math.max(s, 0) / best : 1)
  }

  function bestFirst(scores) { return scores.map((_, i) => i).sort((i, j) => scores[j] - scores[i]) }

  function sourceWeights(scores, p, norm, top) {
    const e = normalized(scores, norm)
    const best = Math.max(...scores)
    const kept = new Set(bestFirst(scores).slice(0, top))
    const share = (s, i) => p == 0 ? 1 : p == Infinity ? Number(s == best) : e[i] ** p
    const w = scores.map((s, i) => kept.has(i) ? share(s, i) : 0)
    const sum = w.reduce((a, b) => a + b)
    return w.map(o => o / sum)
  }

  // Numbers as words. Halves are rounded to even, as Python rounds them

  function percent(a) {
    const r = Math.round(100 * a)
    return `${r - 100 * a == .5 && r % 2 ? r - 1 : r}%`
  }

  function rough(n) { return Number(n.toPrecision(2)).toLocaleString("en-US") }

  function several(names) {
    const shown = names.length > 4 ? [...names.slice(0, 3), `${names.length - 3} more`] : names
    return shown.length == 1 ? shown[0] : `${shown.slice(0, -1).join(", ")} and ${shown.at(-1)}`
  }

  function normalBelow(x) { // probability that a normal variable is below x (Abramowitz and Stegun 26.2.17)
    const t = 1 / (1 + .2316419 * Math.abs(x))
    const poly = [.319381530, -.356563782, 1.781477937, -1.821255978, 1.330274429]
    const tail = Math.exp(-x * x / 2) / Math.sqrt(2 * Math.PI) * poly.reduce((sum, c, k) => sum + c * t ** (k + 1), 0)
    return x > 0 ? 1 - tail : tail
  }

  // What it means: the sentences of distill_nb.ranking.ranking_words. `on` holds positions of sources, the best first

  function weightWords(data, on, alpha) {
    const heavy = alpha.filter(a => a > 0)
    if (heavy.length > 1 && Math.max(...heavy) - Math.min(...heavy) < 1e-9) return `All ${heavy.length} sources weigh the same.`
    const effective = 1 / alpha.reduce((sum, a) => sum + a * a, 0)
    const rest = on.length > 1 ? `; it is as if ${effective.toFixed(1)} of ${on.length} sources taught.` : "."
    return `${data.sources[on[0]].name} carries ${percent(alpha[on[0]])} of the weight${rest}`
  }

  function orderWords(data, metric, on) {
    if (on.length < 2) return ""
    const [i, j] = on
    const [first, second] = [data.sources[i].name, data.sources[j].name]
    const gap = metric.scores[i] - metric.scores[j]
    const se = metric.gap_se[Math.max(i, j)][Math.min(i, j)]
    const p = se ? normalBelow(gap / se) : gap ? 1 : .5
    const n = ` with ${data.n_probe} labelled images`
    if (p >= .95) {
      const sure = p > .995 ? "almost certainly" : `with ${percent(p)} certainty`
      return `It is better than ${second}, the second, ${sure}${n}.`
    }
    const needed = Math.max(1, Math.ceil(data.n_probe * (z90 * se / gap) ** 2))
    const more = needed < 1e5 ? `; about ${rough(needed)} would tell` : ""
    return `${first} and ${second} can't be told apart${n} (${percent(p)} for the first)${more}.`
  }

  function nullWords(data, metric, on) {
    const poor = on.filter(i => metric.scores[i] <= metric.null[i]).map(i => data.sources[i].name)
    if (poor.length == on.length) return "No source scores more than shuffled labels might: nothing here is known to help."
    return poor.length ? `${several(poor)} ${poor.length == 1 ? "scores" : "score"} no more than shuffled labels might.` : ""
  }

  function sizeWords(data, on) {
    const size = i => data.sources[i].parameters
    const largest = on.reduce((a, b) => size(b) > size(a) ? b : a)
    if (size(largest) < 2 * size(on[0])) return ""
    const more = `${(size(largest) / size(on[0])).toFixed(1)} times the parameters of ${data.sources[on[0]].name}`
    return `By size alone ${data.sources[largest].name} would be first (${more}); here it is number ${on.indexOf(largest) + 1}.`
  }

  // The line of code that makes the same choice

  function callLine(data, chosen, on, off) {
    const list = positions => `[${positions.map(i => `'${data.sources[i].name}'`).join(", ")}]`
    let rank = chosen.metric == Object.keys(data.metrics)[0] ? "rank" : `rank.by('${chosen.metric}')`
    const others = () => `[n for n in rank.names if n not in ${list(off)}]`
    if (off.length) rank += `.only(${on.length <= off.length ? list(on) : others()})`
    const p = chosen.p == Infinity ? "p=math.inf" : `p=${chosen.p}`
    const args = [p]
    if (chosen.top < on.length) args.push(`top=${chosen.top}`)
    if (chosen.norm != data.metrics[chosen.metric].norm) args.push(`norm='${chosen.norm}'`)
    return `learn = distill_learner(dls, unlabeled, ${args.length > 1 ? `${rank}.choose(${args.join(", ")})` : `${rank}, ${p}`})`
  }

  // The page

  function make(tag, attributes = {}, ...children) {
    const e = document.createElement(tag)
    for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v)
    e.append(...children)
    return e
  }

  function select(options) { return make("select", {}, ...options.map(([value, text]) => make("option", {value}, text))) }

  function labelled(text, ...controls) { return make("label", {}, make("span", {}, text), ...controls) }

  function drawing(metric, i, [lo, hi]) { // score, interval and null of one source
    const at = v => (1 + 98 * (v - lo) / (hi - lo)).toFixed(2)
    const [low, high] = [-1, 1].map(k => at(metric.scores[i] + k * z90 * metric.se[i]))
    const ends = [at(Math.max(lo, Math.min(0, hi))), at(metric.scores[i])].map(Number).sort((a, b) => a - b)
    return `<rect x="${ends[0]}" y="6" width="${(ends[1] - ends[0]).toFixed(2)}" height="12"/>` +
           `<path class="interval" d="M${low} 12H${high}M${low} 8v8M${high} 8v8"/><path class="null" d="M${at(metric.null[i])} 3v18"/>`
  }

  function axis(metric) {
    const ends = metric.scores.flatMap((s, i) => [s - z90 * metric.se[i], s + z90 * metric.se[i], metric.null[i]])
    if (metric.norm == "clip") ends.push(0)
    const [lo, hi] = [Math.min(...ends), Math.max(...ends)]
    return [lo, hi > lo ? hi : lo + 1]
  }

  function row(source) {
    const box = make("input", {type: "checkbox"})
    box.checked = true
    const title = `${source.task}, ${(source.parameters / 1e6).toPrecision(2)} million parameters`
    const line = make("li", {}, make("label", {title}, box, make("span", {}, source.name)))
    line.insertAdjacentHTML("beforeend", '<svg role="img" viewBox="0 0 100 24" preserveAspectRatio="none"></svg>' +
                            '<span class="score"></span><span class="weight"><i></i><span></span></span>')
    return {line, box, svg: line.querySelector("svg"), score: line.querySelector(".score"),
            bar: line.querySelector("i"), share: line.querySelector(".weight span")}
  }

  function copyButton(code) {
    const button = make("button", {type: "button"}, "copy")
    button.addEventListener("click", () => {
      if (!navigator.clipboard) return getSelection().selectAllChildren(code)
      navigator.clipboard.writeText(code.textContent).then(() => { button.textContent = "copied" })
    })
    return button
  }

  function explore(box) {
    const data = JSON.parse(box.querySelector("script").textContent)
    const count = data.sources.length
    const said = make("p", {class: "said", "aria-live": "polite"})
    const metric = select(Object.keys(data.metrics).map(m => [m, m]))
    const power = make("input", {type: "range", min: 0, max: powers.length - 1, value: powers.indexOf(4)})
    const norm = select([["clip", "as they are"], ["minmax", "from the least up"]])
    const top = make("input", {type: "range", min: 1, max: count, value: count})
    const [powerShown, topShown] = [1, 2].map(() => make("output", {"aria-hidden": true})) // sliders say it themselves
    const rows = data.sources.map(row)
    const list = make("ol", {})
    const code = make("code")

    function draw() {
      const now = data.metrics[metric.value]
      const order = bestFirst(now.scores)
      const [on, off] = [order.filter(i => rows[i].box.checked), order.filter(i => !rows[i].box.checked)]
      const chosen = {metric: metric.value, p: powers[power.value], norm: norm.value, top: Math.min(top.value, on.length)}
      const alpha = now.scores.map(() => 0)
      const shares = on.length ? sourceWeights(on.map(i => now.scores[i]), chosen.p, chosen.norm, chosen.top) : []
      shares.forEach((a, k) => { alpha[on[k]] = a })
      const ends = axis(now)
      rows.forEach((r, i) => {
        r.svg.innerHTML = drawing(now, i, ends)
        r.svg.setAttribute("aria-label", `score ${now.scores[i].toFixed(3)}, weight ${(100 * alpha[i]).toFixed(1)}%`)
        r.score.textContent = now.scores[i].toFixed(3)
        r.bar.style.width = `${70 * alpha[i]}%`
        r.share.textContent = percent(alpha[i])
        r.line.classList.toggle("none", !alpha[i])
        r.line.dataset.weight = alpha[i]
      })
      power.setAttribute("aria-valuetext", powers[power.value])
      powerShown.textContent = chosen.p == Infinity ? "∞" : chosen.p
      topShown.textContent = top.value
      const words = () => [weightWords(data, on, alpha), orderWords(data, now, on), nullWords(data, now, on), sizeWords(data, on)]
      said.textContent = on.length ? words().filter(Boolean).join(" ") : "No source is switched on."
      if (on.length) code.textContent = callLine(data, chosen, on, off)
    }

    function sort() {
      norm.value = data.metrics[metric.value].norm
      list.append(...bestFirst(data.metrics[metric.value].scores).map(i => rows[i].line))
      draw()
    }

    const controls = make("div", {class: "controls"}, labelled("metric", metric), labelled("scores", norm),
                          labelled("power p", power, powerShown), labelled("keep best", top, topShown))
    const head = make("div", {class: "head"})
    head.innerHTML = "<span>source</span><span>score, 90 % interval, <b>|</b> 95 % of shuffled labels</span><span>weight</span>"
    box.append(said, controls, head, list, make("div", {class: "call"}, code, copyButton(code)))
    metric.addEventListener("change", sort)
    for (const o of [norm, power, top, ...rows.map(r => r.box)]) o.addEventListener("input", draw)
    sort()
  }

  for (const box of document.querySelectorAll(".dnb-live:not(.ready)")) {
    box.classList.add("ready")
    explore(box)
  }
}
