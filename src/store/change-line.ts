/** How a change is written into the history, and read out of it again. Pure. */
import { assert } from '../base/errors.ts'
import type { Domain } from '../config/snapshot.ts'
import { domainGroups } from '../config/validate.ts'
import type { Line } from './ledger.ts'
import { VALUE_MAX } from './shared-row.ts'

/**
 * Characters of one side of a change that the history keeps; of a longer one, the beginning. Both,
 * with every quote escaped, fit one shared value.
 */
const TEXT_MAX = 60_000
export const CUT_TEXT_CHARS = 2_000
assert(4 * TEXT_MAX + 4_000 < VALUE_MAX, 'a line of the history fits a shared value')

export type Change = {
  readonly id: string
  /** `setting/policy.hold`, `domain/example.com/nextHops`, `operator/ruiz`. */
  readonly key: string
  readonly author: string
  readonly atMs: number
  /** JSON; null: the cell was not there. */
  readonly before: string | null
  readonly after: string | null
  /** A text was too long to keep, and is only a beginning: not to be undone. */
  readonly isCut: boolean
}

/** A line of the history. */
export type Note = Pick<Change, 'key' | 'before' | 'after'>

/** What the history says of a domain as a whole. Its recipients are counted, not listed. */
export function summaryOf(domain: Domain): string {
  const { nextHops } = domainGroups(domain)
  const { hold, reject, enforce, recipients } = domain
  const own = enforce === null ? {} : { enforce }
  return JSON.stringify({ nextHops, recipients: recipients?.length ?? null, hold, reject, ...own })
}

/** A long list of recipients of which few change is noted as those few. */
export function noteOf(key: string, before: string | null, after: string | null): Note {
  const [old, fresh] = [membersOf(before), membersOf(after)]
  if (!key.endsWith('/recipients') || old === null || fresh === null) return { key, before, after }
  const removed = [...old].filter((one) => !fresh.has(one))
  const added = [...fresh].filter((one) => !old.has(one))
  return { key, before: JSON.stringify({ removed }), after: JSON.stringify({ added }) }
}

/** JSON of a line of the history; a text that is too long is there as its beginning. */
export function lineOf({ key, before, after }: Note, by: string, atMs: number): string {
  const line = { key, before: shortened(before), after: shortened(after), by, atMs }
  return JSON.stringify(isLong(before) || isLong(after) ? { ...line, cut: true } : line)
}

/** The list as it was before a change that `noteOf` noted as members; null: it was not. */
export function undoneMembers(
  standing: string | null,
  before: string | null,
  after: string | null,
): string | null {
  const members = membersOf(standing)
  const { removed } = objectOf(before) as { readonly removed?: unknown }
  const { added } = objectOf(after) as { readonly added?: unknown }
  if (members === null || !isTexts(removed) || !isTexts(added)) return null
  for (const one of added) members.delete(one)
  for (const one of removed) members.add(one)
  return JSON.stringify([...members].sort())
}

/** Null: it is no change that this version can read. */
export function readChange({ id, text }: Line): Change | null {
  const { key, before, after, by, atMs, cut } = objectOf(text) as Readonly<Record<string, unknown>>
  if (typeof key !== 'string' || typeof by !== 'string' || !Number.isSafeInteger(atMs)) return null
  if (before !== null && typeof before !== 'string') return null
  if (after !== null && typeof after !== 'string') return null
  return { id, key, author: by, atMs: Number(atMs), before, after, isCut: cut === true }
}

/** Without members when the text is no object. */
export function objectOf(text: string | null): object {
  const value: unknown = text === null ? null : parseJson(text)
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? value : {}
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return null
  }
}

function membersOf(text: string | null): Set<string> | null {
  const value: unknown = text === null ? null : parseJson(text)
  return isTexts(value) ? new Set(value) : null
}

function isTexts(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.every((one) => typeof one === 'string')
}

function isLong(text: string | null): boolean {
  return text !== null && text.length > TEXT_MAX
}

function shortened(text: string | null): string | null {
  return text !== null && isLong(text) ? `${text.slice(0, CUT_TEXT_CHARS)}…` : text
}
