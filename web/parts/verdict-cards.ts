/** The cards of a mail's page that say who sent it, what is in it, and what would have changed the verdict. */
import type { MessageDetail } from '../../src/admin/contract.ts'
import type { Judgement } from '../../src/message/rows.ts'
import type { AuthResult } from '../../src/message/verdict.ts'
import { type Html, html } from '../html.ts'
import { link } from './forms.ts'
import { glyph, type Mark } from './marks.ts'
import { ruleWords } from './rules.ts'
import { counted, score, size } from './words.ts'

const METHODS: Readonly<Record<AuthResult['method'], string>> = {
  spf: 'SPF',
  dkim: 'DKIM',
  dmarc: 'DMARC',
  arc: 'ARC',
  iprev: 'Name of the client',
}

/** `pass` is good, `fail` is bad, all between is neither. */
function markOf(result: string): Mark {
  if (result === 'pass') return 'pass'
  if (result === 'fail' || result === 'permerror' || result === 'hardfail') return 'fail'
  if (result === 'temperror') return 'unknown'
  return result === 'softfail' || result === 'policy' ? 'warn' : 'none'
}

/** Is the sender who they say? */
export function senderCard({ judgement }: MessageDetail): Html | '' {
  const results = judgement?.insight?.authentication ?? []
  if (results.length === 0) return ''
  return html`<section class="card" aria-labelledby="auth"><header><h2 id="auth">Is the sender who they say?</h2></header><ul class="todo" hx-ignore>${results.map(
    ({ method, result, about, evidence }) =>
      html`<li>${glyph(markOf(result))}<div class="wrap"><b>${METHODS[method]} ${result}</b>${about === '' ? '' : html` <small>${about}</small>`}<br><small>${evidence}</small></div></li>`,
  )}</ul></section>`
}

const LINKS_SHOWN = 20

/** Links and files, each with the way to all other mail that has it. */
export function contentCard({ judgement }: MessageDetail): Html | '' {
  const { urls = [], files = [] } = judgement?.insight ?? {}
  if (urls.length === 0 && files.length === 0) return ''
  const others = (query: string) =>
    html`<br><a href="${link('/messages', { q: query })}">Who else got it</a>`
  return html`<section class="card" aria-labelledby="content"><header><h2 id="content">Links and files</h2></header><ul class="todo" hx-ignore>${files.map(
    ({ path, type, sizeBytes, sha256 }) =>
      html`<li>${glyph('none')}<div class="wrap"><b>${path}</b><br><small>${type ?? 'unknown type'}, ${size(sizeBytes)}, SHA-256 <code title="${sha256}">${sha256.slice(0, 12)}…</code></small>${others(`file:${sha256}`)}</div></li>`,
  )}${urls
    .slice(0, LINKS_SHOWN)
    .map(
      (url) =>
        html`<li>${glyph('none')}<div class="wrap"><span class="mono">${defanged(url)}</span>${others(`link:${quoted(hostOf(url) ?? url)}`)}</div></li>`,
    )}</ul>${urls.length > LINKS_SHOWN ? html`<div class="body"><small>And ${counted(urls.length - LINKS_SHOWN, 'link')} more.</small></div>` : ''}</section>`
}

/** Nobody opens it by a slip of the mouse, and no program makes a link of it. */
function defanged(url: string): string {
  return url.replace(/^http/i, 'hxxp').replace(/\./g, '[.]')
}

function hostOf(url: string): string | null {
  try {
    const { hostname } = new URL(url)
    return hostname === '' ? null : hostname
  } catch {
    return null
  }
}

function quoted(text: string): string {
  return /[\s",]/.test(text) ? `"${text.replaceAll('"', '')}"` : text
}

const VERDICTS: Readonly<Record<Judgement['verdict'], string>> = {
  deliver: 'delivered',
  hold: 'held',
  reject: 'rejected',
  defer: 'asked to come again',
}

/** What the rules of today say of a held mail, beside what was said at the door. */
export function againCard({ judgement }: MessageDetail, again: Judgement): Html {
  const before = new Map(judgement?.findings.map((finding) => [finding.rule, finding.score]))
  const now = new Map(again.findings.map((finding) => [finding.rule, finding.score]))
  const rules = [...new Set([...before.keys(), ...now.keys()])].filter(
    (rule) => before.get(rule) !== now.get(rule),
  )
  const words = (points: number | undefined): string =>
    points === undefined ? 'not found' : score(points)
  return html`<section class="card" aria-labelledby="again"><header><h2 id="again">With the rules of today</h2></header><div class="body first"><p>It would be <b>${VERDICTS[again.verdict]}</b>, with a score of <b>${score(again.score)}</b>${judgement === null ? '' : html`; at the door it had ${score(judgement.score)}`}. Nothing was changed.</p></div>${rules.length === 0 ? html`<div class="body"><small>All rules say what they said at the door.</small></div>` : html`<table class="rows"><thead><tr><th scope="col">Rule</th><th scope="col" class="num">At the door</th><th scope="col" class="num">Today</th></tr></thead><tbody>${rules.map((rule) => html`<tr><td>${ruleWords(rule)} <code>${rule}</code></td><td class="num">${words(before.get(rule))}</td><td class="num">${words(now.get(rule))}</td></tr>`)}</tbody></table>`}${again.unknowns.length === 0 ? '' : html`<div class="body"><small>${counted(again.unknowns.length, 'check')} gave no answer.</small></div>`}</section>`
}

/**
 * What would have changed it: the single findings without which the verdict were another, or how
 * far it was from the next one. Thresholds as they were at the door.
 */
export function whatIf(judgement: Judgement): Html | '' {
  const { score: sum, holdFrom, rejectFrom, findings, unknowns, verdict } = judgement
  const verdictOf = (points: number): string =>
    points >= rejectFrom ? 'rejected' : points >= holdFrom ? 'held' : 'delivered'
  const now = verdictOf(sum)
  if (verdict === 'defer' || unknowns.length > 0) {
    return html`<p>It was not decided by its score: ${counted(unknowns.length, 'check')} gave no answer.</p>`
  }
  const forced =
    (verdict === 'hold' && now === 'delivered') || (verdict === 'reject' && now !== 'rejected')
  if (forced)
    return html`<p>Its score alone would have it ${now}: a rule or a list decides whatever the score.</p>`
  const turning = findings
    .filter(({ score: points }) => verdictOf(hundredths(sum - points)) !== now)
    .toSorted((a, b) => Math.abs(b.score) - Math.abs(a.score))
    .slice(0, 3)
  if (turning.length > 0) {
    return html`<p>${turning.map(({ rule, score: points }, index) => html`${index === 0 ? '' : ' '}Without <b>${ruleWords(rule)}</b> it would have been ${verdictOf(hundredths(sum - points))}.`)}</p>`
  }
  const next = now === 'delivered' ? holdFrom : now === 'held' ? rejectFrom : null
  if (next === null)
    return html`<p>No single finding decides: several would have to be missing.</p>`
  const verb = now === 'delivered' ? 'held' : 'rejected'
  return html`<p>${score(next - sum)} more would have it ${verb}.${now === 'held' ? ' No single finding decides that it is held.' : ''}</p>`
}

function hundredths(value: number): number {
  return Math.round(value * 100) / 100
}
