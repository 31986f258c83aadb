/** One change of the history in words: what, from, to, who, when, and the way back. */
import type { ChangeRow } from '../../src/admin/contract.ts'
import type { SettingValue } from '../../src/config/schema.ts'
import type { Visit } from '../guard.ts'
import { type Html, html } from '../html.ts'
import { act, mayAct } from './forms.ts'
import { settingLabel, settingOf, valueWords } from './labels.ts'
import { longTime } from './words.ts'

export function changeLine(visit: Visit, change: ChangeRow, nowMs: number): Html {
  const { key, before, after } = change
  const [kind = '', name = ''] = split(key)
  // A setting that was never set has its default; a domain or an operator was not there.
  const setting = kind === 'setting' ? settingOf(name) : null
  const initial = setting === null ? null : JSON.stringify(setting.initial)
  const [old, fresh] = [before ?? initial, after ?? initial]
  const was = old === null ? '' : html`<del>${wordsOf(kind, name, old)}</del> `
  const is = fresh === null ? '' : html`<ins>${wordsOf(kind, name, fresh)}</ins>`
  // An operator comes and goes with a password, which no history holds.
  const undo =
    mayAct(visit) && kind !== 'operator'
      ? act(visit, `/changes/${change.id}/undo`, { words: 'Undo', small: true })
      : ''
  return html`<li id="c-${change.id}"><div class="wrap"><b>${titleOf(kind, name)}</b>: ${was}${is}<br><small>${change.by}, ${longTime(change.atMs, nowMs)}</small></div>${undo}</li>`
}

function split(key: string): readonly string[] {
  const at = key.indexOf('/')
  return at < 0 ? ['', key] : [key.slice(0, at), key.slice(at + 1)]
}

function titleOf(kind: string, name: string): string {
  if (kind === 'setting') return settingLabel(name)
  if (kind === 'domain') return `Domain ${name}`
  if (kind === 'operator') return `Operator ${name}`
  return name
}

/** Values are JSON; what cannot be read is shown as it is. */
function wordsOf(kind: string, name: string, text: string): string {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return short(text)
  }
  if (kind === 'setting') return short(valueWords(name, value as SettingValue))
  if (typeof value !== 'object' || value === null) return short(String(value))
  const words = Object.entries(value)
    .filter(([field, held]) => held !== null && field !== 'name')
    .map(([field, held]) => `${FIELDS[field] ?? field} ${plain(field, held)}`)
  return short(words.join(', ') || 'no details')
}

const FIELDS: Readonly<Record<string, string>> = {
  nextHops: 'next hops',
  recipients: 'recipients',
  hold: 'hold from',
  reject: 'reject from',
  role: 'role',
}

function plain(field: string, held: unknown): string {
  if (!Array.isArray(held)) return String(held)
  if (field === 'recipients') return `${held.length} listed`
  if (held.length === 0) return 'by MX'
  return held
    .map((one: unknown) => (typeof one === 'object' && one !== null ? hop(one) : String(one)))
    .join(' ')
}

function hop(one: object): string {
  const { protocol = '', host = '', port = '' } = one as Readonly<Record<string, unknown>>
  return `${protocol}://${host}:${port}`
}

function short(text: string): string {
  return text.length > 200 ? `${text.slice(0, 197)}…` : text
}
