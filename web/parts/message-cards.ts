/** The cards of a mail's page: why this score, recipients, queue, path, facts. */
import type { MessageDetail } from '../../src/admin/contract.ts'
import { some } from '../../src/base/prose.ts'
import type { PendingClaim, TraceEvent } from '../../src/message/rows.ts'
import type { Visit } from '../guard.ts'
import { type Html, html } from '../html.ts'
import { act, link, mayAct } from './forms.ts'
import { copyWords, type Holders, isDoubtful } from './holder.ts'
import { glyph, type Mark, note, placeOf, track } from './marks.ts'
import { ruleWords, unknownWords } from './rules.ts'
import { whatIf } from './verdict-cards.ts'
import { clockTime, day, longTime, score, sender, sentence, size, span, time } from './words.ts'

export function whyCard({ judgement, rows }: MessageDetail): Html | '' {
  if (judgement === null) return ''
  const { findings, unknowns } = judgement
  const sorted = findings.toSorted((a, b) => b.score - a.score)
  const none = findings.length === 0 && unknowns.length === 0
  return html`<section class="card" aria-labelledby="why"><header><h2 id="why">Why this score</h2></header>
<table class="rules" hx-ignore><thead><tr><th scope="col">Rule</th><th scope="col">Evidence</th><th scope="col" colspan="2" class="num">Score</th></tr></thead><tbody>
${sorted.map(
  (one) =>
    html`<tr><th scope="row">${ruleWords(one.rule)}<code>${one.rule}</code></th><td>${one.evidence}</td><td class="w-bar">${bar(one.score)}</td><td class="num"><b>${one.score > 0 ? '+' : ''}${score(one.score)}</b></td></tr>`,
)}
${unknowns.map(
  (one) =>
    html`<tr><th scope="row"><span class="c unknown">${glyph('unknown')}</span> ${unknownWords(one.inspector)}<code>${one.inspector}</code></th><td>${one.cause}</td><td class="w-bar"></td><td class="num"><b>unknown</b></td></tr>`,
)}
</tbody><tfoot><tr><th scope="row">Sum</th><td>${none ? 'No inspector found anything.' : ''}</td><td class="w-bar"></td><td class="num"><b>${score(rows[0]?.score ?? judgement.score)}</b></td></tr></tfoot></table>
<div class="body first"><h3>What would have changed it</h3>${whatIf(judgement)}</div></section>`
}

/** From zero at a third: left is good. */
function bar(value: number): Html {
  const mark = value < 0 ? 'delivered' : value >= 6 ? 'rejected' : 'held'
  const wide = Math.min(value < 0 ? 34 : 65, Math.abs(value) * 8)
  const x = value < 0 ? 35 - wide : 35
  return html`<svg class="meter ${mark}" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true"><rect class="bed" width="100" height="6"/><rect class="fill" x="${x}" width="${wide}" height="6"/><rect class="tick" x="34.6" width=".8" height="6"/></svg>`
}

const RECIPIENTS_SHOWN = 200

export function recipientsCard(
  visit: Visit,
  id: string,
  detail: MessageDetail,
  nowMs: number,
): Html {
  const shown = detail.rows.slice(0, RECIPIENTS_SHOWN)
  const pending = detail.held?.row.pending ?? []
  const waits = new Map(pending.map((click) => [click.recipient, click]))
  const more = detail.rows.length - shown.length
  return html`<section class="card" aria-labelledby="rcpt"><header><h2 id="rcpt">Recipients</h2><small>${detail.rows.length}</small></header>
<table class="rows"><tbody>${shown.map((row) => {
    const held = row.delivery === 'held' && mayAct(visit)
    const isAsked = waits.has(row.recipient) || (detail.held !== null && isDoubtful(detail.held))
    const buttons = held
      ? html`${isAsked ? '' : act(visit, `/messages/${id}/release`, { words: 'Release', small: true, fields: { recipient: row.recipient } })}<a class="btn small danger" href="${link(`/messages/${id}/delete`, { recipient: row.recipient })}">Delete</a>`
      : ''
    const when = row.deliveryMs === null ? '' : `, ${longTime(row.deliveryMs, nowMs)}`
    return html`<tr><td><div class="two" hx-ignore><b>${row.recipient}</b><small>${row.deliveryReply ?? row.acceptReply}${when}</small></div></td><td class="nowrap">${track(placeOf(row))}${waiting(waits.get(row.recipient))}</td><td class="num"><div class="acts right">${buttons}</div></td></tr>`
  })}</tbody></table>${more > 0 ? html`<div class="body"><small>And ${more} more.</small></div>` : ''}</section>`
}

function waiting(click: PendingClaim | undefined): Html | '' {
  if (click === undefined) return ''
  const what = click.kind === 'release' ? 'release' : 'deletion'
  return html`<br><small class="c deferred">${what} waits for ${click.to.name}</small>`
}

export function queueCard(
  { queue, queuedOn }: MessageDetail,
  by: Holders,
  nowMs: number,
): Html | '' {
  if (queuedOn !== null) {
    return html`<section class="card" aria-labelledby="dq"><header><h2 id="dq">Delivery</h2></header><div class="body">${by.queued(queuedOn, false)}</div></section>`
  }
  if (queue === null) return ''
  const silence = by.silence(queue.owner)
  const copies = by.copies(queue)
  const waits =
    silence !== null
      ? html`<div class="body">${by.queued(queue.owner, queue.holders.length > 0)}</div>`
      : queue.waits === null
        ? ''
        : html`<div class="body">${note('unknown', html`<b>It waits.</b> ${sentence(queue.waits)}`)}</div>`
  const hands =
    queue.term < 2
      ? ''
      : html`, <small>it changed hands ${queue.term === 2 ? 'once' : `${queue.term - 1} times`}</small>`
  const open = queue.recipients.filter(
    ({ state }) =>
      state !== 'done' && state !== 'failed' && state !== 'dropped' && state !== 'held',
  )
  return html`<section class="card" aria-labelledby="dq"><header><h2 id="dq">Delivery</h2></header>
${waits}<ul class="todo" hx-ignore>${open
    .slice(0, RECIPIENTS_SHOWN)
    .map(
      (one) =>
        html`<li>${glyph(one.state === 'deferred' ? 'deferred' : one.state === 'inDoubt' ? 'unknown' : 'none')}<div class="wrap"><b>${one.address}</b><br><small>${attemptWords(one.attempts)}${silence === null ? nextWords(one.nextTryMs, nowMs) : ''}${one.lastReply === null ? '' : html`<br>${one.lastReply}`}</small></div></li>`,
    )}</ul>
<div class="body first"><dl class="facts"><dt>Delivered by</dt><dd>${queue.owner.name}${hands}</dd>${copies.length === 0 ? '' : html`<dt>Copies</dt><dd>${copyWords(copies)}</dd>`}</dl></div>
<div class="body"><small>Postern tries until ${longTime(queue.expiresMs, nowMs)}, then the sender is told.</small></div></section>`
}

export function attemptWords(attempts: number): string {
  if (attempts === 0) return 'Not tried yet'
  return attempts === 1 ? 'Tried once' : `Tried ${attempts} times`
}

export function nextWords(nextTryMs: number | null, nowMs: number): string {
  if (nextTryMs === null) return ', an attempt runs now'
  if (nextTryMs <= nowMs) return ', due now'
  return `, again in ${span(nextTryMs - nowMs)}, at ${clockTime(nextTryMs)}`
}

const EVENT: Readonly<Record<string, readonly [mark: Mark, words: string]>> = {
  received: ['info', 'Received'],
  accepted: ['delivered', 'Accepted'],
  held: ['held', 'Held'],
  rejected: ['rejected', 'Rejected at the door'],
  refused: ['rejected', 'Refused at the door'],
  queued: ['none', 'Put into the queue'],
  tried: ['info', 'Delivery tried'],
  deferred: ['deferred', 'Not taken, will be tried again'],
  inDoubt: ['unknown', 'Cut off, perhaps delivered'],
  delivered: ['delivered', 'Delivered'],
  bounced: ['rejected', 'Bounced'],
  dropped: ['rejected', 'Given up'],
  released: ['delivered', 'Released'],
  deleted: ['none', 'Deleted'],
  expired: ['none', 'Deleted after its time'],
  asked: ['deferred', 'Asked for while its node was away'],
  adopted: ['info', 'Another node took it over'],
  resolved: ['info', 'What had become of it elsewhere is known'],
  transferred: ['info', 'Handed to another node'],
  yielded: ['info', 'Left to the node that had taken it over'],
  healed: ['pass', 'Copied to another node'],
  alone: ['warn', 'Taken with one copy only'],
  barred: ['unknown', 'Waited until it was known who has it'],
}

export function pathCard({ events }: MessageDetail, nowMs: number): Html {
  const shown = events.slice(0, 300)
  const days = new Set(shown.map(({ atMs }) => day(atMs, nowMs)))
  const line = (event: TraceEvent) => {
    const [mark, words] = EVENT[event.what] ?? ['none', event.what]
    const at =
      days.size > 1 && day(event.atMs, nowMs) !== 'today'
        ? longTime(event.atMs, nowMs)
        : clockTime(event.atMs, true)
    const more = [event.recipient, event.detail]
      .filter((text) => text !== null && text !== '')
      .join(': ')
    return html`<li><i>${glyph(mark)}</i>${time(event.atMs, at)}<div>${words}${more === '' ? '' : html`<p>${more}</p>`}</div></li>`
  }
  return html`<section class="card" aria-labelledby="path"><header><h2 id="path">Path</h2></header>${shown.length === 0 ? html`<div class="body"><small>Nothing was noted.</small></div>` : html`<ol class="lanes one" hx-ignore>${shown.map(line)}</ol>`}</section>`
}

export function factsCard({ rows, held }: MessageDetail, nowMs: number): Html | '' {
  const [first] = rows
  if (first === undefined) return ''
  const fact = (name: string, words: Html | string | null) =>
    words === null ? '' : html`<dt>${name}</dt><dd>${words}</dd>`
  return html`<section class="card" aria-labelledby="facts"><header><h2 id="facts">Facts</h2></header><div class="body" hx-ignore><dl class="facts">
${fact('Sender', sender(first.sender))}
${fact('From', held?.row.from ?? null)}
${fact('Client', first.clientIp)}
${fact('Came in on', first.node.name)}
${fact('Received', time(first.atMs, `${day(first.atMs, nowMs)} ${clockTime(first.atMs, true)}`))}
${fact('Size', size(first.sizeBytes))}
${fact('Answer', html`<code>${first.acceptReply}</code>`)}
${fact('Id', html`<code>${first.id}</code>`)}
${fact(
  'Held by',
  held === null
    ? null
    : some(
        [held.row.owner, ...held.row.holders].map(({ name }) => name),
        4,
      ),
)}
${fact('Deleted', held === null ? null : longTime(held.row.expiresMs, nowMs))}
</dl></div></section>`
}
