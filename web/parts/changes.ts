/** One change of the history in words: what, from, to, who, when, and the way back. */
import type { ChangeRow } from '../../src/admin/contract.ts'
import type { SettingValue } from '../../src/config/schema.ts'
import type { Visit } from '../guard.ts'
import { type Html, html } from '../html.ts'
import type { Site } from '../site.ts'
import { act, mayChange } from './forms.ts'
import { settingLabel, settingOf, valueWords } from './labels.ts'
import { longTime } from './words.ts'

/** What a key of the history names: `setting/policy.hold`, `domain/example.com/nextHops`. */
export type CellName = {
  readonly kind: string
  readonly name: string
  /** A part of it; null: all of it. */
  readonly field: string | null
}

export function changeLine(site: Site, visit: Visit, change: ChangeRow, nowMs: number): Html {
  const cell = cellOf(change.key)
  // An operator and a token come and go with a secret, which no history holds.
  const undo =
    mayChange(site, visit) && cell.kind !== 'operator' && cell.kind !== 'apitoken'
      ? act(visit, `/changes/${encodeURIComponent(change.id)}/undo`, { words: 'Undo', small: true })
      : ''
  return html`<li><div class="wrap"><b>${titleOf(cell)}</b>: ${difference(cell, change)}<br><small>${change.by}, ${longTime(change.atMs, nowMs)}</small></div>${undo}</li>`
}

export function cellOf(key: string): CellName {
  const [kind = '', ...rest] = key.split('/')
  const name = rest.join('/')
  if (kind !== 'domain')
    return rest.length === 0 ? { kind: '', name: key, field: null } : { kind, name, field: null }
  // No domain has a slash in its name.
  const [domain = '', ...field] = rest
  return { kind, name: domain, field: field.length === 0 ? null : field.join('/') }
}

export function titleOf({ kind, name, field }: CellName): string {
  switch (kind) {
    case 'setting':
      return settingLabel(name)
    case 'domain':
      return field === null ? `Domain ${name}` : `${FIELD_LABELS[field] ?? field} of ${name}`
    case 'operator':
      return `Operator ${name}`
    case 'apitoken':
      return `API token ${name}`
    case 'list': {
      const [list, , ...value] = name.split('/')
      return `${list === 'allow' ? 'Allow' : 'Block'} list, ${value.join('/')}`
    }
    default:
      return kind === '' ? name : `${kind} ${name}`
  }
}

/** Of a domain only the fields that changed; of anything else the two values. */
function difference(cell: CellName, { before, after }: ChangeRow): Html {
  const [was, is] = [parsed(before), parsed(after)]
  if (cell.kind === 'domain' && isObject(was) && isObject(is)) {
    const fields = [...new Set([...Object.keys(was), ...Object.keys(is)])].filter(
      (field) => JSON.stringify(was[field]) !== JSON.stringify(is[field]),
    )
    if (fields.length > 0) {
      return html`${fields.map((field, i) => html`${i === 0 ? '' : ', '}${FIELDS[field] ?? field} ${gone(fieldWords(field, was[field]))}${come(fieldWords(field, is[field]))}`)}`
    }
  }
  // A setting that was never set has its default; a domain or an operator was not there.
  const setting = cell.kind === 'setting' ? settingOf(cell.name) : null
  const initial = setting === null ? null : JSON.stringify(setting.initial)
  const [old, fresh] = [before ?? initial, after ?? initial]
  return html`${old === null ? '' : gone(wordsOf(cell, old))}${fresh === null ? '' : come(wordsOf(cell, fresh))}`
}

function gone(words: string): Html {
  return html`<del>${words}</del> `
}

function come(words: string): Html {
  return html`<ins>${words}</ins>`
}

/** A value of the cell as people say it. It is JSON; what cannot be read is shown as it is. */
export function wordsOf({ kind, name, field }: CellName, text: string): string {
  const value = parsed(text)
  if (value === undefined) return short(text)
  if (kind === 'setting') return short(valueWords(name, value as SettingValue))
  if (field !== null) return short(fieldWords(field, value))
  if (!isObject(value)) return short(String(value))
  const words = Object.entries(value)
    .filter(
      ([part, held]) => held !== null && held !== '' && (part !== 'name' || kind !== 'domain'),
    )
    .map(([part, held]) => `${FIELDS[part] ?? part} ${fieldWords(part, held)}`)
  return short(words.join(', ') || (kind === 'list' ? 'listed' : 'no details'))
}

/** Undefined for what is no JSON; null stays null. */
function parsed(text: string | null): unknown {
  if (text === null) return null
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

const FIELDS: Readonly<Record<string, string>> = {
  nextHops: 'next hops',
  recipients: 'recipients',
  hold: 'hold from',
  reject: 'reject from',
  enforce: 'enforce DMARC',
  role: 'role',
}

/** As FIELDS, where a line begins. */
export const FIELD_LABELS: Readonly<Record<string, string>> = {
  nextHops: 'Next hops',
  recipients: 'Recipients',
  hold: 'Hold from score',
  reject: 'Reject from score',
  enforce: 'Enforce DMARC',
}

function fieldWords(field: string, held: unknown): string {
  if (held === null || held === undefined) {
    return field === 'recipients' ? 'any' : 'as for all domains'
  }
  if (!Array.isArray(held)) return short(isObject(held) ? JSON.stringify(held) : String(held))
  if (field === 'recipients') return `${held.length} listed`
  if (held.length === 0) return field === 'nextHops' ? 'by MX' : 'none'
  return short(held.map((one: unknown) => (isObject(one) ? hop(one) : String(one))).join(' '))
}

function hop(one: Readonly<Record<string, unknown>>): string {
  const { protocol = '', host = '', port = '' } = one
  return `${protocol}://${host}:${port}`
}

function short(text: string): string {
  return text.length > 200 ? `${text.slice(0, 197)}…` : text
}
