/**
 * The two key pairs of a node (X25519: RFC 7748, Ed25519: RFC 8032) as raw bytes, by node:crypto:
 * ten times quicker than the same in JavaScript, and synchronous.
 */
import {
  createPrivateKey,
  createPublicKey,
  sign as signWith,
  verify as verifyWith,
} from 'node:crypto'
import type { Random } from '../base/random.ts'
import type { NodeKeys } from './contract.ts'

export const KEY_BYTES = 32
export const SIGNATURE_BYTES = 64

/** DER before the raw key (RFC 8410): the last octet but those of the tag tells which curve. */
const PRIVATE = {
  exchange: Buffer.from('302e020100300506032b656e04220420', 'hex'),
  sign: Buffer.from('302e020100300506032b657004220420', 'hex'),
} as const
const PUBLIC = { sign: Buffer.from('302a300506032b6570032100', 'hex') } as const

export function newKeys(random: Random): NodeKeys {
  return keysOf(random.bytes(KEY_BYTES), random.bytes(KEY_BYTES))
}

/** Both pairs from their secrets, 32 bytes each. */
export function keysOf(exchange: Uint8Array, sign: Uint8Array): NodeKeys {
  return {
    exchange: { secret: exchange, public: publicOf('exchange', exchange) },
    sign: { secret: sign, public: publicOf('sign', sign) },
  }
}

function publicOf(use: keyof typeof PRIVATE, secret: Uint8Array): Uint8Array {
  const spki = createPublicKey(privateKey(use, secret)).export({ type: 'spki', format: 'der' })
  return new Uint8Array(spki.subarray(spki.length - KEY_BYTES))
}

function privateKey(use: keyof typeof PRIVATE, secret: Uint8Array) {
  const key = Buffer.concat([PRIVATE[use], secret])
  return createPrivateKey({ key, format: 'der', type: 'pkcs8' })
}

/** An Ed25519 signature, 64 bytes; the same for the same text and key. */
export function signText(keys: NodeKeys, text: string | Uint8Array): Uint8Array {
  return new Uint8Array(signWith(null, bytesOf(text), privateKey('sign', keys.sign.secret)))
}

/** False for whatever is no signature of `text` by this key; never throws. */
export function isSigned(
  publicKey: Uint8Array,
  text: string | Uint8Array,
  signature: Uint8Array,
): boolean {
  if (publicKey.length !== KEY_BYTES || signature.length !== SIGNATURE_BYTES) return false
  const key = Buffer.concat([PUBLIC.sign, publicKey])
  try {
    const by = createPublicKey({ key, format: 'der', type: 'spki' })
    return verifyWith(null, bytesOf(text), by, signature)
  } catch {
    // A key that is no point of the curve signs nothing.
    return false
  }
}

function bytesOf(text: string | Uint8Array): Uint8Array {
  return typeof text === 'string' ? Buffer.from(text) : text
}
