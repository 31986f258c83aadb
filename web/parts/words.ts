/** Numbers, times and sizes as people read them; the zone is that of this machine. */
import { isoTime } from '../../src/base/clock.ts'
import { type Html, html } from '../html.ts'

const MONTHS = [
  'January',
  'February',
  'March',
  'April',
  'May',
  'June',
  'July',
  'August',
  'September',
  'October',
  'November',
  'December',
]

/** `1,204`. */
export function count(value: number): string {
  return String(Math.round(value)).replace(/\B(?=(\d{3})+$)/g, ',')
}

/** `1 mail`, `2 mails`, `1,204 mails`. */
export function counted(value: number, one: string, many = `${one}s`): string {
  return `${count(value)} ${value === 1 ? one : many}`
}

/** `184 KB`, `1.4 GB`; binary units. */
export function size(bytes: number): string {
  let value = bytes
  for (const unit of ['B', 'KB', 'MB', 'GB']) {
    if (value < 1_000)
      return `${value < 10 && unit !== 'B' ? value.toFixed(1) : Math.round(value)} ${unit}`
    value /= 1_024
  }
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} TB`
}

/** `11.3`, `−0.5`, with a real minus. */
export function score(value: number): string {
  return value.toFixed(1).replace('-', '−')
}

/** `4 min`, `2 h`, `3 days`: the largest unit that fits, of a length in ms. */
export function span(lengthMs: number): string {
  const seconds = Math.max(0, Math.round(lengthMs / 1_000))
  if (seconds < 90) return `${seconds} s`
  if (seconds < 5_400) return `${Math.round(seconds / 60)} min`
  if (seconds < 129_600) return `${Math.round(seconds / 3_600)} h`
  return `${Math.round(seconds / 86_400)} days`
}

/** `Berlin` of `Europe/Berlin`. */
export function zoneName(): string {
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone
  return (zone.split('/').at(-1) ?? zone).replaceAll('_', ' ')
}

/** `03:11` or, with `seconds`, `03:11:52`. */
export function clockTime(atMs: number, seconds = false): string {
  const at = new Date(atMs)
  const parts = [at.getHours(), at.getMinutes(), ...(seconds ? [at.getSeconds()] : [])]
  return parts.map((part) => String(part).padStart(2, '0')).join(':')
}

/** `today`, `yesterday`, `11 April`, `11 April 2025`. */
export function day(atMs: number, nowMs: number): string {
  const [at, now] = [new Date(atMs), new Date(nowMs)]
  const days = Math.round((midnight(now) - midnight(at)) / 86_400_000)
  if (days === 0) return 'today'
  if (days === 1) return 'yesterday'
  const year = at.getFullYear() === now.getFullYear() ? '' : ` ${at.getFullYear()}`
  return `${at.getDate()} ${MONTHS[at.getMonth()]}${year}`
}

function midnight(at: Date): number {
  return new Date(at.getFullYear(), at.getMonth(), at.getDate()).getTime()
}

/** `03:11:52` today, `20 Nov 03:11` before that; for narrow columns. */
export function shortTime(atMs: number, nowMs: number): string {
  const at = new Date(atMs)
  if (day(atMs, nowMs) === 'today') return clockTime(atMs, true)
  const month = (MONTHS[at.getMonth()] ?? '').slice(0, 3)
  if (at.getFullYear() !== new Date(nowMs).getFullYear()) {
    return `${at.getDate()} ${month} ${at.getFullYear()}`
  }
  return `${at.getDate()} ${month} ${clockTime(atMs)}`
}

/** `today 03:11`, `11 April 03:11`; in sentences. */
export function longTime(atMs: number, nowMs: number): string {
  return `${day(atMs, nowMs)} ${clockTime(atMs)}`
}

/** A moment: short words, the exact time in the attributes. */
export function time(atMs: number, words: string): Html {
  return html`<time datetime="${isoTime(atMs)}" title="${isoTime(atMs)}">${words}</time>`
}

/** An address of the envelope; the null sender has a name. */
export function sender(address: string): string {
  return address === '' ? 'a mail system (null sender)' : address
}

export function subjectOf(subject: string | null): string {
  return subject === null || subject.trim() === '' ? '(no subject)' : subject
}

/** With a capital and a full stop. */
export function sentence(words: string): string {
  const text = words.charAt(0).toUpperCase() + words.slice(1)
  return /[.!?]$/.test(text) ? text : `${text}.`
}
