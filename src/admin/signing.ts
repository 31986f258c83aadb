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
import { mustAct } from './authorise.ts'
import type { SigningAdmin, SigningKeyRow } from './contract.ts'

/** 1,024 are refused by receivers (RFC 8301 section 3.2); 4,096 do not fit one string of a TXT record. */
const RSA_BITS = 2_048

export type SigningDeps = {
  readonly live: LiveConfig
  readonly changes: Pick<Changes, 'write' | 'mustBeWritable'>
  readonly names: Names
  /** Sealed for all nodes; none in a test that needs none. */
  readonly secrets: {
    put(author: string, name: string, secret: Uint8Array): void
    get(name: string): Uint8Array | null
    remove(author: string, name: string): void
  }
}

/** Name of the private key among the secrets of the cluster. */
export function secretName(domain: string, selector: string): string {
  return `dkim:${domain}:${selector}`
}

export function signingPart(
  deps: SigningDeps,
): SigningAdmin & { checkWaiting(): Promise<readonly string[]> } {
  const { live, changes, names, secrets } = deps
  const find = (rawDomain: string, rawSelector: string): SigningKey => {
    const [domain, selector] = [readDomainName(rawDomain), readSelector(rawSelector)]
    const found = live.current.signing.find(
      (key) => key.domain === domain && key.selector === selector,
    )
    if (found !== undefined) return found
    throw new RefusalError(
      'notFound',
      'selector',
      `${domain} has no key ${selector}.`,
      'See the list of its keys.',
    )
  }
  const rowOf = (key: SigningKey): SigningKeyRow => ({
    ...key,
    recordName: recordName(key),
    record: recordText(key),
    isHere: secrets.get(secretName(key.domain, key.selector)) !== null,
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
    changes.write(
      author,
      [{ kind: SIGNING_KIND, key: name, value }],
      [{ key: `${SIGNING_KIND}/${name}`, before: textOf(before), after: value }],
    )
  }
  /** The sentence that says what the DNS has; null: it has the record. */
  const trouble = async (key: SigningKey): Promise<string | null> => {
    const name = recordName(key)
    const answer = await names.query({ name, type: 'TXT' }, 'fresh')
    if (answer.status === 'failed')
      return `The name servers do not say whether ${name} has its record: ${answer.cause}.`
    if (answer.status === 'absent') return `${name} has no TXT record yet.`
    if (answer.records.some((text) => isRecordOf(key, text))) return null
    return `${name} has a TXT record, and it is of another key.`
  }
  return {
    signingKeys: (domain) =>
      live.current.signing
        .filter((key) => domain === undefined || key.domain === readDomainName(domain))
        .map(rowOf),

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
      const why = await trouble(key)
      if (why !== null) {
        const advice = `Publish TXT ${recordName(key)} with: ${recordText(key)}`
        throw new RefusalError('conflict', 'selector', why, advice)
      }
      const active: SigningKey = { ...key, state: 'active' }
      if (key.state !== 'active') write(author.name, key, active, key)
      return rowOf(active)
    },

    retireSigningKey(author, domain, selector) {
      mustAct(author)
      const key = find(domain, selector)
      const others = live.current.signing.filter(
        (other) => other.domain === key.domain && other.state === 'active' && other !== key,
      )
      if (key.state === 'active' && others.length === 0) {
        throw new RefusalError(
          'conflict',
          'selector',
          `${selector} is the only key that signs mail of ${key.domain}.`,
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
      secrets.remove(author.name, secretName(key.domain, key.selector))
    },

    /** Keys that wait and whose record is there now sign from here on; gives their names. */
    async checkWaiting() {
      const activated: string[] = []
      for (const key of live.current.signing) {
        if (key.state !== 'waiting' || (await trouble(key)) !== null) continue
        write('postern', key, { ...key, state: 'active' }, key)
        activated.push(recordName(key))
      }
      return activated
    },
  }
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
