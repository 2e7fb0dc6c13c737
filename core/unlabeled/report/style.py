"""How the page looks, and its one script: samples under the pointer. Neither needs anything from elsewhere."""

from __future__ import annotations

from unlabeled.report.charts import COLOURS, DASHES
from unlabeled.report.labels import COLOURS as CLASSES

STYLE = """
:root { color-scheme: light dark; --back: #fff; --text: #1c1e21; --soft: #5f666e; --line: #e3e5e8; --warn: #b3261e;
  --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #b5588f; --c4: #b07d00; --c5: #3d9bd1; --card: #fff;
  --k0: #3f90da; --k1: #ffa90e; --k2: #bd1f01; --k3: #94a4a2; --k4: #832db6; --k5: #a96b59; --k6: #e76300;
  --k7: #b9ac70; --k8: #717581; --k9: #5fc4cb; }
@media (prefers-color-scheme: dark) { :root { --back: #15171a; --text: #e4e6e9; --soft: #9aa1a9; --line: #2e3238;
  --warn: #ff8a80; --c0: #56b4e9; --c1: #ff8f45; --c2: #2ec79c; --c3: #e39cc6; --c4: #f0b73a; --c5: #9ad4f5;
  --card: #23272c; --k2: #e5533a; --k4: #b06be0; --k8: #8d93a3; --k9: #92dadd; } }
body { margin: 0 auto; max-width: 76rem; padding: 1.5rem; background: var(--back); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
h3 { font-size: 1rem; margin: 1.6rem 0 .3rem; } h2 + h3, div > h3, .result h3 { margin-top: 0; }
p { margin: .3rem 0 .8rem; max-width: 46rem; }
.soft, figcaption span { color: var(--soft); }
.warn { border-left: 4px solid var(--warn); padding: .2rem .8rem; margin: .8rem 0; }
.result { margin-bottom: 2rem; } .result .charts { margin-top: 1rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(21rem, 100%), 1fr)); gap: 1.4rem 1.6rem; }
.sections { columns: 21rem; column-gap: 1.6rem; } .sections > div { break-inside: avoid; margin-bottom: 1.2rem; }
.map { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(21rem, 100%), 1fr)); gap: 1.6rem;
  align-items: start; } .map > figure { max-width: 40rem; }
figure { margin: 0; } figcaption { display: flex; justify-content: space-between; gap: 1rem; font-weight: 600; }
figcaption span { font-weight: 400; }
svg { display: block; width: 100%; height: auto; } .swatch { display: inline; width: 28px; vertical-align: middle; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.4rem; margin: .6rem 0 1rem; padding: 0; list-style: none; }
text { fill: var(--text); font: 11px system-ui, sans-serif; } .tick, .name { fill: var(--soft); }
.tick.y, .name.x { text-anchor: end; } .tick.x, .number { text-anchor: middle; }
.grid { stroke: var(--line); } .axis { stroke: var(--soft); } .mark { stroke: var(--warn); stroke-dasharray: 2 2; }
.curve { fill: none; stroke: var(--c0); stroke-width: 1.6; stroke-linejoin: round; stroke-linecap: round; }
.hint { fill: transparent; } .hint:hover { fill: var(--soft); } .dot { fill: var(--c0); fill-opacity: .5; }
.dot.none { fill: none; stroke: var(--soft); fill-opacity: 0; } .dot.other { fill: var(--soft); fill-opacity: .35; }
.dot.labelled { fill-opacity: .85; } .quiet .dot:not(.loud) { opacity: .12; } .ring { fill: none; stroke: var(--text); }
.key { display: inline-block; width: .75em; height: .75em; border-radius: 50%; border: 1px solid transparent; }
.key.none { border-color: var(--soft); } .key.other { background: var(--soft); opacity: .5; }
.ramp { display: inline-block; width: 9rem; height: .7em; border-radius: 2px; vertical-align: baseline; }
svg.samples { touch-action: manipulation; } svg.samples:focus { outline: 2px solid var(--c0); outline-offset: 2px; }
#card { position: fixed; z-index: 2; max-width: 17rem; padding: .5rem .6rem; background: var(--card); font-size: .8rem;
  border: 1px solid var(--line); border-radius: 4px; box-shadow: 0 2px 10px #0004; pointer-events: none; }
#card[hidden] { display: none; } #card img { width: 128px; margin-bottom: .3rem; } #card p { margin: 0; }
#card p, .sample, .rows td { overflow-wrap: anywhere; } #card p:first-of-type { font-weight: 600; }
img { display: block; image-rendering: pixelated; } .sample img { width: 88px; height: 88px; object-fit: contain;
  object-position: left bottom; }
.group { display: flex; gap: .5rem 1.4rem; padding: .7rem 0; border-bottom: 1px solid var(--line); max-width: none; }
.group > b { flex: 0 0 1.2rem; } .group > div { display: flex; flex-wrap: wrap; gap: .6rem .9rem; }
.groups { display: flex; flex-wrap: wrap; column-gap: 3rem; }
.apart { display: flex; flex-wrap: wrap; gap: .8rem 1.2rem; }
.sample { width: 7.6rem; font-size: .78rem; line-height: 1.3; } .sample span { display: block; color: var(--soft); }
.sample.first { padding-right: .8rem; border-right: 1px solid var(--line); } .rows tr.first td { font-weight: 600; }
.rows tbody + tbody tr:first-child td { border-top: 2px solid var(--soft); } .rows td { max-width: 14rem; }
.num { font-feature-settings: "tnum"; white-space: nowrap; } .num small { display: block; color: var(--soft); }
.base td, .base .num { color: var(--soft); } .band { stroke-width: 2; stroke: var(--soft); }
.mean { fill: var(--soft); } .line { stroke: var(--soft); stroke-dasharray: 3 3; }
@media (max-width: 40rem) { body { padding: 1rem; } .sample { width: 5.4rem; } .group > div { gap: .6rem .4rem; }
  .sample img { width: 76px; height: 76px; } .group { gap: .3rem; } .sample.first { padding-right: .2rem; } }
.query { fill: var(--back); stroke: var(--c1); stroke-width: 1.5; } .number { font-weight: 600; }
dl { display: flex; flex-wrap: wrap; gap: .6rem 2rem; margin: 1rem 0; } dd { margin: 0; overflow-wrap: anywhere; }
dt { color: var(--soft); font-size: .85rem; } .plain td { white-space: nowrap; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .2rem 1rem .2rem 0; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 500; white-space: nowrap; } td { overflow-wrap: anywhere; }
tbody td:first-child { white-space: nowrap; } footer { margin-top: 2.5rem; color: var(--soft); font-size: .85rem; }
""" + "".join(
    [f".c{n} {{ stroke: var(--c{n}); }}\n" for n in range(COLOURS)]
    + [f".mean.c{n} {{ fill: var(--c{n}); }}\n" for n in range(COLOURS)]
    + [f".k{n} {{ fill: var(--k{n}); }} .key.k{n} {{ background: var(--k{n}); }}\n" for n in range(CLASSES)]
    + [f".d{n} {{ stroke-dasharray: {dash}; }}\n" for n, dash in enumerate(DASHES) if dash]
)

SCRIPT = """
(() => {
  const card = document.createElement("div"); card.id = "card"; card.hidden = true; document.body.append(card);
  const hide = () => { card.hidden = true; document.querySelectorAll(".ring").forEach(one => one.remove()); };
  document.querySelectorAll(".samples").forEach(svg => {
    const dots = [...svg.querySelectorAll(".dot")], box = svg.closest("section");
    const told = [...box.querySelector(".samples").querySelectorAll(".dot")];
    dots.forEach(dot => dot.querySelector("title").remove());
    let at = -1;
    const show = number => {
      hide(); at = number;
      const dot = dots[at], about = told[at].dataset;
      card.replaceChildren();
      if (about.picture) {
        const img = document.createElement("img"); img.alt = "";
        img.src = "data:image/png;base64," + about.picture; card.append(img);
      }
      about.text.split("\\n").forEach(line => {
        const p = document.createElement("p"); p.textContent = line; card.append(p);
      });
      const ring = dot.cloneNode(false);
      ring.setAttribute("class", "ring"); ring.removeAttribute("style"); ring.setAttribute("r", 6); svg.append(ring);
      card.hidden = false;
      const place = dot.getBoundingClientRect(), size = card.getBoundingClientRect();
      const right = place.right + 12 + size.width < innerWidth;
      card.style.left = Math.max(4, right ? place.right + 12 : place.left - 12 - size.width) + "px";
      card.style.top = Math.max(4, Math.min(place.top - 20, innerHeight - size.height - 4)) + "px";
    };
    const nearest = event => {
      let best = -1, least = 18 ** 2;
      dots.forEach((dot, number) => {
        const r = dot.getBoundingClientRect();
        const far = (r.x + r.width / 2 - event.clientX) ** 2 + (r.y + r.height / 2 - event.clientY) ** 2;
        if (far < least) { least = far; best = number; }
      });
      if (best < 0) hide(); else if (best !== at || card.hidden) show(best);
    };
    svg.setAttribute("tabindex", 0);
    svg.addEventListener("pointermove", nearest); svg.addEventListener("click", nearest);
    svg.addEventListener("pointerleave", hide); svg.addEventListener("blur", hide);
    svg.addEventListener("keydown", event => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (event.key === "Escape") hide();
      if (!step) return;
      event.preventDefault(); show((at + step + dots.length) % dots.length);
    });
    [...box.querySelectorAll("[data-class]"), ...document.querySelectorAll(".shared [data-class]")].forEach(item => {
      const only = on => {
        svg.classList.toggle("quiet", on);
        dots.forEach(dot => dot.classList.toggle("loud", on && dot.classList.contains(item.dataset.class)));
      };
      item.addEventListener("pointerenter", () => only(true)); item.addEventListener("pointerleave", () => only(false));
    });
  });
})();
"""
