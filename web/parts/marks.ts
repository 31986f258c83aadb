/** Status as shape, colour and word: glyph, badge, track, meter, notice, icon. */
import type { TraceRow } from '../../src/message/rows.ts'
import { type Html, html } from '../html.ts'
import { score } from './words.ts'

export type Mark =
  | 'delivered'
  | 'held'
  | 'rejected'
  | 'deferred'
  | 'unknown'
  | 'none'
  | 'alive'
  | 'suspect'
  | 'dead'
  | 'draining'
  | 'pass'
  | 'fail'
  | 'warn'
  | 'info'

export function glyph(mark: Mark): Html {
  return html`<i class="g ${mark}"></i>`
}

export function badge(mark: Mark, words: string): Html {
  return html`<span class="badge ${mark}">${glyph(mark)}${words}</span>`
}

/** First glyph: the door; second: the next hop. One glyph when it ended at the door. */
export function track(place: Place): Html {
  const second = place.after === null ? '' : glyph(place.after)
  const main = place.after ?? place.door
  return html`<span class="track ${main}">${glyph(place.door)}${second}<b>${place.word}</b></span>`
}

export type Place = {
  readonly door: Mark
  /** Null when it ended at the door. */
  readonly after: Mark | null
  /** One or two words. */
  readonly word: string
  /** What stands below the word, a phrase. */
  readonly more: string
}

/** Where the copy of one recipient is, in words. */
export function placeOf(row: TraceRow): Place {
  const answered = row.acceptReply.slice(0, 3)
  switch (row.accept) {
    case 'rejected':
      return { door: 'rejected', after: null, word: 'Rejected', more: `${answered} at the door` }
    case 'refused':
      return { door: 'rejected', after: null, word: 'Refused', more: `${answered} at the door` }
    case 'deferred':
      return { door: 'deferred', after: null, word: 'Deferred', more: `${answered} at the door` }
    case 'accepted':
    case 'held':
      return afterDoor(row)
  }
}

function afterDoor(row: TraceRow): Place {
  const door = 'delivered'
  const reply = row.deliveryReply ?? ''
  switch (row.delivery) {
    case null:
    case 'queued':
      return { door, after: 'none', word: 'Waiting', more: 'for its first delivery' }
    case 'deferred':
      return { door, after: 'deferred', word: 'Waiting', more: 'will be tried again' }
    case 'inDoubt':
      return { door, after: 'unknown', word: 'In doubt', more: 'delivery was cut off' }
    case 'delivered':
      return { door, after: 'delivered', word: 'Delivered', more: 'taken by the next hop' }
    case 'bounced':
      return { door, after: 'rejected', word: 'Bounced', more: 'refused by the next hop' }
    case 'dropped':
      return { door, after: 'rejected', word: 'Dropped', more: 'an operator gave it up' }
    case 'held':
      return { door, after: 'held', word: 'Held', more: 'in quarantine' }
    case 'released':
      return { door, after: 'delivered', word: 'Released', more: reply }
    case 'deleted':
      return { door, after: 'none', word: 'Deleted', more: reply }
    case 'expired':
      return { door, after: 'none', word: 'Expired', more: 'deleted after its time' }
  }
}

/** 200 wide is score 0 to 20, with ticks where holding and rejecting begin. */
export function meter(value: number, limits: Limits): Html {
  const mark = value >= limits.reject ? 'rejected' : value >= limits.hold ? 'held' : 'none'
  const wide = Math.min(200, Math.max(6, value * 10))
  const label = `Score ${score(value)}; held from ${limits.hold}, rejected from ${limits.reject}`
  return html`<svg class="meter ${mark}" viewBox="0 0 200 6" preserveAspectRatio="none" role="img" aria-label="${label}"><rect class="bed" width="200" height="6"/><rect class="fill" width="${wide}" height="6"/>${tick(limits.hold)}${tick(limits.reject)}</svg>`
}

export type Limits = { readonly hold: number; readonly reject: number }

function tick(at: number): Html {
  return at > 20 ? html`` : html`<rect class="tick" x="${at * 10}" width="1.5" height="6"/>`
}

/** A whole sentence with a glyph; `role="alert"` only for what failed. */
export function note(mark: Mark, words: Html, action: Html | null = null): Html {
  const alert = mark === 'dead' || mark === 'fail' ? html` role="alert"` : ''
  return html`<div class="note ${mark}"${alert}>${glyph(mark)}<p>${words}</p>${action}</div>`
}

export function empty(title: string, words: Html, action: Html | null = null): Html {
  return html`<div class="empty"><h3>${title}</h3><p>${words}</p>${action}</div>`
}

export function icon(name: 'search' | 'menu' | 'theme' | 'clip' | 'copy' | 'pause'): Html {
  return html`<svg class="i" aria-hidden="true"><use href="#i-${name}"/></svg>`
}

/** A line that a person takes elsewhere; `id` is unique on its page. */
export function copyable(id: string, text: string): Html {
  return html`<div class="copy"><code id="${id}">${text}</code><button class="btn small" type="button" data-copy="#${id}">${icon('copy')}<span>Copy</span></button></div>`
}
