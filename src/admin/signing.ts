/**
 * Keys with which mail of our domains is signed: made here, sealed for every node, and in use only
 * when the DNS has their record, so that no receiver ever sees a signature that it cannot check.
 */
import { generateKeyPair, type KeyObject } from 'node:crypto'
import { promisify } from 'node:util'
import { RefusalError } from '../base/errors.ts'
import type { Names } from '../base/names.ts'
import type { LiveConfig } from '../config/live.ts'
import {
  isRecordOf,
  readSelector,
  recordName,
  recordText,
  SIGNING_KIND,
  SIGNING_MAX,
  type SigningKey,
} from '../config/signing.ts'
import { readDomainName } from '../config/validate.ts'
import type { Changes } from '../store/changes.ts'
import { type KeyRecords, nameOf } from '../store/key-records.ts'
import { mustAct } from './authorise.ts'
import type { SigningAdmin, SigningKeyRow } from './contract.ts'
import type { LostKey } from './signing-alert.ts'

/** 1,024 are refused by receivers (RFC 8301 section 3.2); 4,096 do not fit one string of a TXT record. */
const RSA_BITS = 2_048
/** Records that are asked for at a time. */
const ASKED_MAX = 10

/** What the DNS says of the record of a key; `why` is a sentence. */
type Seen =
  | { readonly status: 'there' }
  | { readonly status: 'missing' | 'unknown'; readonly why: string }

/** What came of a look at all keys. */
export type Checked = {
  /** Names of the records of keys that sign from here on. */
  readonly activated: readonly string[]
  /** Keys that sign and whose record the DNS has not; and those of which nobody knows. */
  readonly missing: number
  readonly unknown: number
}

export type SigningDeps = {
  readonly live: LiveConfig
  readonly changes: Pick<Changes, 'write' | 'mustBeWritable' | 'isRemoved'>
  readonly keyRecords: Pick<KeyRecords, 'missing' | 'note'>
  readonly names: Names
  /** Sealed for all nodes; none in a test that needs none. */
  readonly secrets: {
    put(author: string, name: string, secret: Uint8Array): void
    get(name: string): Uint8Array | null
    remove(author: string, name: string): void
    names(): readonly string[]
  }
}

/** Name of the private key among the secrets of the cluster. */
export function secretName(domain: string, selector: string): string {
  return `dkim:${domain}:${selector}`
}

/** The cell of the key of a secret; null: it is of another kind. */
function cellOfSecret(name: string): string | null {
  const [kind, domain = '', selector = ''] = name.split(':')
  return kind === 'dkim' ? `${SIGNING_KIND}/${domain}/${selector}` : null
}

export type SigningPart = SigningAdmin & {
  /**
   * Asks the DNS for the records of all keys that wait or sign: one that waits and has its record
   * signs from here on; one that signs and has none any more is told by all nodes.
   */
  checkKeys(): Promise<Checked>
  /**
   * Takes away the secrets of keys that were removed, whatever removed them: also those that another
   * node sealed for a new member before it heard of that. @throws StoreError
   */
  forgetSecrets(author: string): void
  /** Keys that sign without a record that says so. @throws StoreError */
  lostKeys(): readonly LostKey[]
}

export function signingPart(deps: SigningDeps): SigningPart {
  const { live, changes, names, secrets, keyRecords } = deps
  const find = (rawDomain: string, rawSelector: string): SigningKey => {
    const [domain, selector] = [readDomainName(rawDomain), readSelector(rawSelector)]
    const found = live.current.signing.find(
      (key) => key.domain === domain && key.selector === selector,
    )
    if (found === undefined) throw noKey({ domain, selector })
    return found
  }
  /** As it stands after the DNS was asked; null: it was removed meanwhile. */
  const still = ({ domain, selector, publicKey }: SigningKey): SigningKey | null =>
    live.current.signing.find(
      (key) => key.domain === domain && key.selector === selector && key.publicKey === publicKey,
    ) ?? null
  const rowOf = (key: SigningKey, missing = keyRecords.missing()): SigningKeyRow => ({
    ...key,
    recordName: recordName(key),
    record: recordText(key),
    isHere: secrets.get(secretName(key.domain, key.selector)) !== null,
    trouble: key.state === 'active' ? (missing.get(nameOf(key))?.why ?? null) : null,
  })
  /** Null as `after`: it is gone; as `before`: it is new. */
  const write = (
    author: string,
    { domain, selector }: Pick<SigningKey, 'domain' | 'selector'>,
    after: SigningKey | null,
    before: SigningKey | null,
  ): void => {
    const name = `${domain}/${selector}`
    const value = textOf(after)
    // A new key is a change of its domain: on a node that removes that unseen, the domain stays.
    const isOfDomain = before === null && live.current.domains.has(domain)
    changes.write(
      author,
      [
        { kind: SIGNING_KIND, key: name, value },
        ...(isOfDomain ? [{ kind: 'domain', key: domain, value: '{}' }] : []),
      ],
      [{ key: `${SIGNING_KIND}/${name}`, before: textOf(before), after: value }],
    )
  }
  const forgetSecrets = (author: string): void => {
    for (const name of secrets.names()) {
      const cell = cellOfSecret(name)
      if (cell !== null && changes.isRemoved(cell)) secrets.remove(author, name)
    }
  }
  const look = async (key: SigningKey): Promise<Seen> => {
    const name = recordName(key)
    const answer = await names.query({ name, type: 'TXT' }, 'fresh')
    if (answer.status === 'failed') {
      const why = `The name servers do not say whether ${name} has its record: ${answer.cause}.`
      return { status: 'unknown', why }
    }
    if (answer.status === 'absent') {
      const yet = key.state === 'waiting' ? ' yet' : ''
      return { status: 'missing', why: `${name} has no TXT record${yet}.` }
    }
    if (answer.records.some((text) => isRecordOf(key, text))) return { status: 'there' }
    return { status: 'missing', why: `${name} has a TXT record, and it is of another key.` }
  }
  /** What was seen of a key that signs by now is remembered, and nothing when nobody knows. */
  const note = (key: SigningKey, seen: Seen): void => {
    if (seen.status === 'there') keyRecords.note(key, null)
    else if (seen.status === 'missing' && key.state === 'active') keyRecords.note(key, seen.why)
  }
  /** False: nothing may be set on this node now; the next look tries again. */
  const activate = (key: SigningKey): boolean => {
    try {
      write('postern', key, { ...key, state: 'active' }, key)
      return true
    } catch (error) {
      if (error instanceof RefusalError) return false
      throw error
    }
  }
  return {
    signingKeys: (domain) =>
      live.current.signing
        .filter((key) => domain === undefined || key.domain === readDomainName(domain))
        .map((key) => rowOf(key)),

    async addSigningKey(author, input) {
      mustAct(author)
      changes.mustBeWritable()
      const domain = readDomainName(input.domain)
      const selector = readSelector(input.selector)
      const { algorithm } = input
      if (algorithm !== 'rsa' && algorithm !== 'ed25519') {
        throw new RefusalError(
          'invalid',
          'algorithm',
          `There is no algorithm ${JSON.stringify(algorithm.slice(0, 20))}.`,
          'Choose rsa, which everybody checks, or ed25519 beside it.',
        )
      }
      const keys = live.current.signing
      if (keys.some((key) => key.domain === domain && key.selector === selector)) {
        throw new RefusalError(
          'conflict',
          'selector',
          `${domain} has a key ${selector} already.`,
          'Take another selector: a record that was seen once must not change.',
        )
      }
      if (changes.isRemoved(`${SIGNING_KIND}/${domain}/${selector}`)) {
        throw new RefusalError(
          'conflict',
          'selector',
          `${domain} had a key ${selector}, which was removed.`,
          'Take another selector: a record that was seen once must not change.',
        )
      }
      if (keys.length >= SIGNING_MAX) {
        throw new RefusalError(
          'invalid',
          'selector',
          `There are already ${SIGNING_MAX} keys.`,
          'Remove some that are retired.',
        )
      }
      const { publicKey, secret } = await newKey(algorithm)
      const key: SigningKey = { domain, selector, algorithm, publicKey, state: 'waiting' }
      // The secret first: a key that is known and cannot sign would be a lie.
      secrets.put(author.name, secretName(domain, selector), secret)
      write(author.name, key, key, null)
      return rowOf(key)
    },

    async checkSigningKey(author, domain, selector) {
      mustAct(author)
      const key = find(domain, selector)
      const seen = await look(key)
      const now = still(key)
      if (now === null) throw noKey(key)
      note(now, seen)
      if (seen.status !== 'there') {
        const advice = `Publish TXT ${recordName(key)} with: ${recordText(key)}`
        throw new RefusalError('conflict', 'selector', seen.why, advice)
      }
      const active: SigningKey = { ...now, state: 'active' }
      if (now.state !== 'active') write(author.name, now, active, now)
      return rowOf(active)
    },

    retireSigningKey(author, domain, selector) {
      mustAct(author)
      const key = find(domain, selector)
      const missing = keyRecords.missing()
      const others = live.current.signing.filter(
        (other) =>
          other.domain === key.domain &&
          other.state === 'active' &&
          other !== key &&
          !missing.has(nameOf(other)),
      )
      if (key.state === 'active' && others.length === 0) {
        throw new RefusalError(
          'conflict',
          'selector',
          `Without ${key.selector} no key whose record the DNS has signs mail of ${key.domain}.`,
          'Add another one and wait until it signs; or remove this one, and mail goes out unsigned.',
        )
      }
      const retired: SigningKey = { ...key, state: 'retired' }
      if (key.state !== 'retired') write(author.name, key, retired, key)
      return rowOf(retired)
    },

    removeSigningKey(author, domain, selector) {
      mustAct(author)
      const key = find(domain, selector)
      write(author.name, key, null, key)
      forgetSecrets(author.name)
    },

    async checkKeys() {
      forgetSecrets('postern')
      const keys = live.current.signing.filter(({ state }) => state !== 'retired')
      const activated: string[] = []
      let [missing, unknown] = [0, 0]
      const check = async (key: SigningKey): Promise<void> => {
        const seen = await look(key)
        const now = still(key)
        if (now === null) return
        note(now, seen)
        if (seen.status === 'unknown') unknown += 1
        else if (seen.status === 'missing' && now.state === 'active') missing += 1
        else if (seen.status === 'there' && now.state === 'waiting' && activate(now))
          activated.push(recordName(now))
      }
      for (let at = 0; at < keys.length; at += ASKED_MAX)
        await Promise.all(keys.slice(at, at + ASKED_MAX).map(check))
      return { activated, missing, unknown }
    },

    forgetSecrets,

    lostKeys() {
      const missing = keyRecords.missing()
      const active = live.current.signing.filter(({ state }) => state === 'active')
      return active.flatMap((key) => {
        const record = missing.get(nameOf(key))
        if (record === undefined) return []
        const others = active.filter((other) => other.domain === key.domain && other !== key)
        const isOnly = others.every((other) => missing.has(nameOf(other)))
        return { ...record, key, isOnly }
      })
    },
  }
}

function noKey({ domain, selector }: Pick<SigningKey, 'domain' | 'selector'>): RefusalError {
  return new RefusalError(
    'notFound',
    'selector',
    `${domain} has no key ${selector}.`,
    'See the list of its keys.',
  )
}

function textOf(key: SigningKey | null): string | null {
  if (key === null) return null
  const { algorithm, publicKey, state } = key
  return JSON.stringify({ algorithm, publicKey, state })
}

async function newKey(
  algorithm: SigningKey['algorithm'],
): Promise<{ readonly publicKey: string; readonly secret: Uint8Array }> {
  const pair: { readonly publicKey: KeyObject; readonly privateKey: KeyObject } =
    algorithm === 'rsa'
      ? await promisify(generateKeyPair)('rsa', { modulusLength: RSA_BITS })
      : await promisify(generateKeyPair)('ed25519', {})
  const spki = pair.publicKey.export({ type: 'spki', format: 'der' })
  // Of Ed25519 the record has the bare 32 octets (RFC 8463 section 4.2).
  const bare = algorithm === 'rsa' ? spki : spki.subarray(spki.length - 32)
  const secret = pair.privateKey.export({ type: 'pkcs8', format: 'der' })
  return { publicKey: bare.toString('base64'), secret: new Uint8Array(secret) }
}
