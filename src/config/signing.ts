/** Keys with which mail of our domains is signed (DKIM, RFC 6376; Ed25519, RFC 8463): what all nodes know of them. Pure. */
import { RefusalError } from '../base/errors.ts'

export type SigningKey = {
  readonly domain: string
  /** One or more labels. */
  readonly selector: string
  readonly algorithm: 'rsa' | 'ed25519'
  /** As the DNS has it: the `p=` of its record. */
  readonly publicKey: string
  /** `waiting`: signs nothing until the DNS has its record. `retired`: signs nothing any more. */
  readonly state: 'waiting' | 'active' | 'retired'
}

export const SIGNING_KIND = 'dkim'
/** Keys of all domains. */
export const SIGNING_MAX = 1_000

const SELECTOR = /^(?!-)[a-z0-9-]{1,40}(?<!-)$/

/** @throws RefusalError invalid, field `selector` */
export function readSelector(raw: string): string {
  const selector = raw.trim().toLowerCase()
  if (SELECTOR.test(selector)) return selector
  throw new RefusalError(
    'invalid',
    'selector',
    `${JSON.stringify(raw.slice(0, 60))} is no selector.`,
    'Use lower case letters, digits and dashes, at most 40: s2026.',
  )
}

/** The value of the cell `DOMAIN/SELECTOR`. @throws RefusalError invalid, with the field */
export function readSigningKey(key: string, raw: unknown): SigningKey {
  const slash = key.lastIndexOf('/')
  const { algorithm, publicKey, state } = (raw ?? {}) as Readonly<Record<string, unknown>>
  if (algorithm !== 'rsa' && algorithm !== 'ed25519') throw wrong('algorithm')
  if (state !== 'waiting' && state !== 'active' && state !== 'retired') throw wrong('state')
  if (typeof publicKey !== 'string' || !/^[A-Za-z0-9+/]{40,1200}={0,2}$/.test(publicKey))
    throw wrong('publicKey')
  const selector = readSelector(key.slice(slash + 1))
  return { domain: key.slice(0, slash), selector, algorithm, publicKey, state }
}

/** Name of its record in the DNS. */
export function recordName({ domain, selector }: Pick<SigningKey, 'domain' | 'selector'>): string {
  return `${selector}._domainkey.${domain}`
}

/** Its record (RFC 6376 section 3.6.1). */
export function recordText({ algorithm, publicKey }: SigningKey): string {
  return `v=DKIM1; k=${algorithm}; p=${publicKey}`
}

/** Whether a TXT record names this key: other tags and blanks may stand beside it. */
export function isRecordOf(key: SigningKey, text: string): boolean {
  const tags = new Map(
    text.split(';').map((tag) => {
      const at = tag.indexOf('=')
      return [tag.slice(0, at).trim().toLowerCase(), tag.slice(at + 1).replace(/\s+/g, '')]
    }),
  )
  return (
    tags.get('p') === key.publicKey &&
    (tags.get('k') ?? 'rsa') === key.algorithm &&
    (tags.get('v') ?? 'DKIM1') === 'DKIM1'
  )
}

function wrong(field: string): RefusalError {
  return new RefusalError('invalid', field, `The key has no valid ${field}.`, 'Make a new one.')
}
