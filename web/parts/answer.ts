/** The two headlines of a mail: where is it, and why. */

import type { MessageDetail } from '../../src/admin/contract.ts'
import { assert } from '../../src/base/errors.ts'
import { some } from '../../src/base/prose.ts'
import type { TraceRow } from '../../src/message/rows.ts'
import { type Html, html } from '../html.ts'
import { type Limits, type Mark, type Place, placeOf, track } from './marks.ts'
import { ruleWords, unknownWords } from './rules.ts'
import { longTime, score, sender, size } from './words.ts'

export function answer(detail: MessageDetail, fallback: Limits, nowMs: number): Html {
  const [first] = detail.rows
  if (first === undefined) return html``
  const lead = leading(detail.rows)
  const place = placeOf(lead)
  const mark: Mark = place.after ?? place.door
  const limits =
    detail.judgement === null
      ? fallback
      : { hold: detail.judgement.holdFrom, reject: detail.judgement.rejectFrom }
  const where = whereWords(detail, lead, nowMs)
  const reason = whyWords(detail, lead, limits)
  const recipients = detail.rows.map(({ recipient }) => recipient)
  return html`<section class="card answer ${mark}" id="answer" aria-label="Where and why" hx-ignore>
<div><h2>Where is it</h2><p class="say">${where.say}</p><p>${where.more}</p></div>
<div><h2>Why</h2><p class="say">${reason.say}</p><p>${reason.more}</p>${scale(lead.score, limits)}</div>
<footer class="acts">${track(tracked(detail.rows, place))}<span class="muted">From <b>${sender(first.sender)}</b> to <b>${some(recipients)}</b>, ${longTime(first.atMs, nowMs)}, ${size(first.sizeBytes)}</span></footer>
</section>`
}

/** What an operator should see first, when recipients differ. */
const URGENT = ['held', 'inDoubt', 'deferred', 'queued', 'bounced'] as const

function leading(rows: readonly TraceRow[]): TraceRow {
  for (const state of URGENT) {
    const found = rows.find(({ delivery }) => delivery === state)
    if (found !== undefined) return found
  }
  const [first] = rows
  assert(first !== undefined, 'a mail has a recipient')
  return first
}

function tracked(rows: readonly TraceRow[], lead: Place): Place {
  if (rows.length === 1)
    return {
      ...lead,
      word: lead.after === null ? lead.word : `Accepted, then ${lead.word.toLowerCase()}`,
    }
  const words = new Map<string, number>()
  for (const row of rows) {
    const { word } = placeOf(row)
    words.set(word, (words.get(word) ?? 0) + 1)
  }
  const summary = [...words].map(([word, count]) => `${count} ${word.toLowerCase()}`).join(', ')
  return { ...lead, word: summary }
}

type Say = { readonly say: string; readonly more: Html | string }

function whereWords(detail: MessageDetail, lead: TraceRow, nowMs: number): Say {
  const alike = detail.rows.filter(
    (row) => row.accept === lead.accept && row.delivery === lead.delivery,
  )
  const whom = html`<b>${some(alike.map(({ recipient }) => recipient))}</b>`
  const have = alike.length === 1 ? 'has' : 'have'
  const when = lead.deliveryMs === null ? '' : `${longTime(lead.deliveryMs, nowMs)}. `
  const reply = lead.deliveryReply === null ? '' : html`It said: <code>${lead.deliveryReply}</code>`
  const told = html`The sender was told: <code>${lead.acceptReply}</code>`
  switch (lead.accept) {
    case 'rejected':
      return {
        say: 'Rejected at the door',
        more: html`${whom} ${have} not received it, and nothing is kept. ${told}`,
      }
    case 'refused':
      return {
        say: 'Refused at the door',
        more: html`Postern did not look at it, and nothing is kept. ${told}`,
      }
    case 'deferred':
      return {
        say: 'Asked to come again',
        more: html`The sending server keeps it and tries again. ${told}`,
      }
    default:
      break
  }
  switch (lead.delivery) {
    case 'held': {
      const expires =
        detail.held === null
          ? ''
          : ` It is deleted ${longTime(detail.held.row.expiresMs, nowMs)} unless somebody releases it.`
      return {
        say: 'Held in quarantine',
        more: html`${detail.held === null ? '' : html`On <b>${detail.held.row.owner.name}</b>. `}${whom} ${have} not received it. The sender was told that it was accepted.${expires}`,
      }
    }
    case 'delivered':
      return {
        say: 'Delivered to the next hop',
        more: html`It took the mail for ${whom} ${when}${reply}`,
      }
    case 'deferred':
      return {
        say: 'Waiting in the queue',
        more: html`The next hop did not take it for ${whom}, and Postern tries again. ${reply}`,
      }
    case 'inDoubt':
      return {
        say: 'Perhaps delivered',
        more: html`The delivery to ${whom} was cut off after the mail was sent. It is sent again, so it may arrive twice. ${reply}`,
      }
    case 'bounced':
      return { say: 'Bounced', more: html`The next hop refused it for ${whom} ${when}${reply}` }
    case 'dropped':
      return {
        say: 'Given up by an operator',
        more: html`${whom} ${have} not received it. ${reply}`,
      }
    case 'released':
      return {
        say: 'Released',
        more: html`It is on its way to ${whom}. Released ${lead.deliveryReply} ${when}`,
      }
    case 'deleted':
      return {
        say: 'Deleted from quarantine',
        more: html`${whom} ${have} not received it. Deleted ${lead.deliveryReply} ${when}`,
      }
    case 'expired':
      return {
        say: 'Deleted after its time',
        more: html`Nobody released it. ${whom} ${have} not received it.`,
      }
    case 'queued':
    case null:
      return {
        say: 'Waiting for its first delivery',
        more: html`It is kept and goes to ${whom} next.`,
      }
  }
}

function whyWords({ judgement }: MessageDetail, lead: TraceRow, limits: Limits): Say {
  const value = html`The score is <b>${score(lead.score)}</b>; mail is held from <b>${limits.hold}</b> and rejected from <b>${limits.reject}</b>.`
  const [unknown] = judgement?.unknowns ?? []
  const worst = judgement?.findings
    .filter((one) => one.score > 0)
    .toSorted((a, b) => b.score - a.score)[0]
  if (worst !== undefined)
    return { say: ruleWords(worst.rule), more: html`${worst.evidence} ${value}` }
  if (unknown !== undefined) {
    return {
      say: unknownWords(unknown.inspector),
      more: html`So the mail does not count as clean. ${unknown.cause}`,
    }
  }
  const [rule] = lead.rules
  if (rule !== undefined) return { say: ruleWords(rule), more: value }
  if (lead.accept === 'refused' || lead.accept === 'deferred') {
    return {
      say: 'The envelope was not taken',
      more: html`The answer says why: <code>${lead.acceptReply}</code>`,
    }
  }
  return { say: 'Nothing was found', more: value }
}

/** 0 to 20, coloured by what happens there. */
function scale(value: number, { hold, reject }: Limits): Html | '' {
  const x = (at: number) => Math.min(200, Math.max(0, at * 10))
  const pin = Math.min(198, x(value))
  return html`<div><svg class="scale" viewBox="0 0 200 12" preserveAspectRatio="none" role="img" aria-label="Score ${score(value)}; held from ${hold}, rejected from ${reject}"><rect class="z0" width="${x(hold)}" height="12"/><rect class="z1" x="${x(hold)}" width="${x(reject) - x(hold)}" height="12"/><rect class="z2" x="${x(reject)}" width="${200 - x(reject)}" height="12"/><rect class="pin" x="${pin}" width="2" height="12"/></svg>${ends(hold, reject)}</div>`
}

/** Labels under the scale, each at its place; SVG because a place is a number and styles are not. */
function ends(hold: number, reject: number): Html {
  const label = (at: number, words: string) => {
    const percent = Math.min(100, at * 5)
    const end = percent > 70
    return html`<text x="${end ? 100 : percent}%" y="13"${end ? html` text-anchor="end"` : ''}>${words}</text>`
  }
  const near = Math.abs(reject - hold) < 4
  return html`<svg class="ends" aria-hidden="true">${hold < 3 ? '' : label(0, 'Deliver')}${near ? '' : label(hold, `Hold from ${hold}`)}${label(reject, `Reject from ${reject}`)}</svg>`
}
