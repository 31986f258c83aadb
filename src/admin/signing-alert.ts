/**
 * Keys that sign mail although the DNS has not their record (any more): told on every node, since
 * all of them sign. Signing goes on, as it does in other gateways: a signature that cannot be
 * checked counts as none (RFC 6376 section 6.1), mail without one is no better off, and the record
 * may be back before the mail is read.
 */
import { recordName, recordText, type SigningKey } from '../config/signing.ts'
import type { MissingRecord } from '../store/key-records.ts'
import type { Alert } from './contract.ts'

export type LostKey = MissingRecord & {
  readonly key: SigningKey
  /** No other key whose record is there signs mail of its domain. */
  readonly isOnly: boolean
}

/** Keys that are named; the rest is a number. */
const NAMED_MAX = 3

export function lostKeysAlert(lost: readonly LostKey[]): Omit<Alert, 'id'> | null {
  const [first] = lost
  if (first === undefined) return null
  const bare = lost.filter(({ isOnly }) => isOnly)
  const { key } = first
  return {
    kind: 'signing',
    level: bare.length > 0 ? 'bad' : 'warn',
    node: null,
    sinceMs: Math.min(...lost.map(({ sinceMs }) => sinceMs)),
    title:
      lost.length === 1
        ? `The DNS has not the record of key ${key.selector} of ${key.domain}`
        : `The DNS has not the records of ${lost.length} keys that sign`,
    meaning: `${
      bare.length > 0
        ? 'Mail goes out signed, and nobody can check the signature: receivers take it for unsigned, and refuse it where the DMARC policy of its domain says so.'
        : 'Another key signs the same mail, so it can still be checked.'
    } ${listed(
      lost.map(({ why }) => why),
      ' ',
    )}`,
    advice: `Publish ${listed(lost.map(published), '; ')}. It is looked for every hour, and by the command below at once. If the record is gone on purpose, retire the key.`,
    command: `postern dkim check ${key.domain} ${key.selector}`,
  }
}

/** In quotes, as in a zone file: no full stop of ours is copied with it. */
function published({ key }: LostKey): string {
  return `TXT ${recordName(key)} with "${recordText(key)}"`
}

function listed(texts: readonly string[], between: string): string {
  const rest = texts.length - NAMED_MAX
  const more = rest > 0 ? [`${rest} more`] : []
  return [...texts.slice(0, NAMED_MAX), ...more].join(between)
}
