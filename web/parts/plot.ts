/** Bars over time and lists with bars, drawn by the server. */
import type { OverviewNumbers } from '../../src/admin/contract.ts'
import { type Html, html } from '../html.ts'
import { clockTime, count, day, span } from './words.ts'

const STATES = ['delivered', 'held', 'deferred', 'rejected'] as const
const HIGH = 184

type Series = OverviewNumbers['series']

/** One bar a bucket, stacked; the title says what the plot shows. */
export function plot(series: Series, nowMs: number): Html {
  const sums = series.map((bucket) => STATES.reduce((sum, state) => sum + bucket[state], 0))
  const top = niceTop(Math.max(0, ...sums))
  const step = 1_200 / Math.max(1, series.length)
  const groups = STATES.map((state, at) => {
    const bars = series.flatMap((bucket, i) => {
      const value = bucket[state]
      if (value === 0) return []
      const under = STATES.slice(0, at).reduce((sum, other) => sum + bucket[other], 0)
      const high = (value / top) * HIGH
      const y = HIGH - (under / top) * HIGH - high
      return [
        html`<rect x="${(i * step + 2).toFixed(1)}" y="${y.toFixed(1)}" width="${(step - 4).toFixed(1)}" height="${high.toFixed(1)}"/>`,
      ]
    })
    return html`<g class="${state}">${bars}</g>`
  })
  return html`<figure class="plot"><svg viewBox="0 0 1200 ${HIGH}" preserveAspectRatio="none" role="img" aria-labelledby="plot-t"><title id="plot-t">${finding(series, sums, nowMs)}</title><path class="grid" d="M0 .5h1200M0 92h1200M0 183.5h1200"/>${groups}</svg><span class="y y1">${count(top)}</span><span class="y y2">${count(top / 2)}</span>
<ol aria-hidden="true">${axis(series, nowMs)}</ol></figure>`
}

/** The next even number of the form 1, 2, 4, 6, 8 × 10^n, so that its half is whole. */
function niceTop(most: number): number {
  for (let unit = 1; ; unit *= 10) {
    for (const factor of [2, 4, 6, 8, 10]) if (factor * unit >= most) return factor * unit
  }
}

function finding(series: Series, sums: readonly number[], nowMs: number): string {
  const [first, second] = series
  if (first === undefined) return 'No mails yet.'
  const each = second === undefined ? nowMs - first.atMs : second.atMs - first.atMs
  const most = Math.max(...sums)
  const peak = series[sums.indexOf(most)]
  const head = `Mails each ${span(each)} since ${day(first.atMs, nowMs)} ${clockTime(first.atMs)}.`
  if (most === 0 || peak === undefined) return `${head} There were none.`
  return `${head} Most, ${count(most)}, at ${clockTime(peak.atMs)} ${day(peak.atMs, nowMs)}.`
}

function axis(series: Series, nowMs: number): readonly Html[] {
  const first = series[0]?.atMs ?? nowMs
  const long = nowMs - first > 2 * 86_400_000
  return [0, 1, 2, 3, 4, 5]
    .map((sixth) => {
      const atMs = first + ((nowMs - first) * sixth) / 6
      return html`<li>${long ? day(atMs, nowMs) : clockTime(atMs)}</li>`
    })
    .concat(html`<li>now</li>`)
}

export type Bar = {
  readonly words: string
  readonly path: string
  readonly small: string
  readonly value: number
}

/** Longest bar first; the longest is the whole width. */
export function bars(items: readonly Bar[]): Html {
  const most = Math.max(1, ...items.map(({ value }) => value))
  return html`<ul class="bars">${items.map(
    ({ words, path, small, value }) =>
      html`<li><svg viewBox="0 0 100 1" preserveAspectRatio="none" aria-hidden="true"><rect width="${((value / most) * 100).toFixed(1)}" height="1"/></svg><a href="${path}" hx-ignore>${words}</a><span><small>${small}</small></span><span>${count(value)}</span></li>`,
  )}</ul>`
}
