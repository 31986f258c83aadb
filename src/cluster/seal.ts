/**
 * The primitives of the channel: ChaCha20-Poly1305 (RFC 8439) and XChaCha20-Poly1305 of
 * @noble/ciphers, the first one also by WebCrypto; AES-256-GCM (NIST SP 800-38D), X25519 (RFC
 * 7748), SHA-256, HMAC and HKDF (RFC 5869) by node:crypto. Signatures are in keys.ts.
 */
import {
  createCipheriv,
  createDecipheriv,
  createHash,
  createHmac,
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  timingSafeEqual,
} from 'node:crypto'
import { chacha20poly1305, xchacha20poly1305 } from '@noble/ciphers/chacha.js'
import type { Random } from '../base/random.ts'
import { KEY_BYTES } from './keys.ts'

export const TAG_BYTES = 16
export const HASH_BYTES = 32
export const XNONCE_BYTES = 24

export type ExchangePair = { readonly secret: Uint8Array; readonly public: Uint8Array }

const EMPTY = new Uint8Array(0)

// ---- authenticated encryption ----

/** Ciphertext and tag. `nonce` has 12 bytes and must never come twice under one key. */
export function seal(
  key: Uint8Array,
  nonce: Uint8Array,
  aad: Uint8Array,
  text: Uint8Array,
): Uint8Array {
  return chacha20poly1305(key, nonce, plain(aad)).encrypt(plain(text))
}

/** Null: not sealed by this key, nonce and `aad`, or too short to be sealed at all. */
export function open(
  key: Uint8Array,
  nonce: Uint8Array,
  aad: Uint8Array,
  sealed: Uint8Array,
): Uint8Array | null {
  if (sealed.length < TAG_BYTES) return null
  try {
    return chacha20poly1305(key, nonce, plain(aad)).decrypt(plain(sealed))
  } catch {
    return null
  }
}

/** As `seal` with a nonce of 24 bytes, long enough to be drawn at random for each text. */
export function sealX(
  key: Uint8Array,
  nonce: Uint8Array,
  aad: Uint8Array,
  text: Uint8Array,
): Uint8Array {
  return xchacha20poly1305(key, nonce, plain(aad)).encrypt(plain(text))
}

export function openX(
  key: Uint8Array,
  nonce: Uint8Array,
  aad: Uint8Array,
  sealed: Uint8Array,
): Uint8Array | null {
  if (sealed.length < TAG_BYTES) return null
  try {
    return xchacha20poly1305(key, nonce, plain(aad)).decrypt(plain(sealed))
  } catch {
    return null
  }
}

/**
 * As `seal`, by AES-256-GCM: at 5 KB a 25th of the time of noble, at 64 KB a 9th of WebCrypto's,
 * and on this thread. Gives the pieces of ciphertext and tag, to be put where they go.
 */
export function sealGcm(
  key: Uint8Array,
  nonce: Uint8Array,
  aad: Uint8Array,
  text: Uint8Array,
): readonly [ciphertext: Uint8Array, tag: Uint8Array] {
  const cipher = createCipheriv('aes-256-gcm', key, nonce, { authTagLength: TAG_BYTES })
  cipher.setAAD(aad)
  const ciphertext = cipher.update(text)
  cipher.final()
  return [ciphertext, cipher.getAuthTag()]
}

/** As `open`, of what `sealGcm` made. */
export function openGcm(
  key: Uint8Array,
  nonce: Uint8Array,
  aad: Uint8Array,
  sealed: Uint8Array,
): Uint8Array | null {
  const length = sealed.length - TAG_BYTES
  if (length < 0) return null
  const decipher = createDecipheriv('aes-256-gcm', key, nonce, { authTagLength: TAG_BYTES })
  decipher.setAAD(aad)
  decipher.setAuthTag(sealed.subarray(length))
  const text = decipher.update(sealed.subarray(0, length))
  try {
    // Only this says that the text is the one that was sealed.
    decipher.final()
  } catch {
    return null
  }
  return plain(text)
}

/** noble is 2 to 5 times slower over a Buffer than over the same bytes as a Uint8Array. */
function plain(bytes: Uint8Array): Uint8Array {
  if (bytes.constructor === Uint8Array) return bytes
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length)
}

/**
 * One key for WebCrypto, which gives the same bytes as `seal` on other threads. Only for long
 * texts: a call costs more than noble needs for a few KiB. Nothing passed in may change until the
 * promise is settled.
 */
export class ThreadedKey {
  readonly #key: Promise<CryptoKey>

  constructor(key: Uint8Array) {
    const imported = crypto.subtle.importKey(
      // Bun knows this key by the new name of the format only.
      'raw-secret' as 'raw',
      key as Uint8Array<ArrayBuffer>,
      'ChaCha20-Poly1305',
      false,
      ['encrypt', 'decrypt'],
    )
    // Who awaits the key hears of a failure; without anybody it is no failure.
    imported.catch(() => {})
    this.#key = imported
  }

  async seal(nonce: Uint8Array, aad: Uint8Array, text: Uint8Array): Promise<Uint8Array> {
    const sealed = await crypto.subtle.encrypt(
      algorithm(nonce, aad),
      await this.#key,
      text as Uint8Array<ArrayBuffer>,
    )
    return new Uint8Array(sealed)
  }

  async open(nonce: Uint8Array, aad: Uint8Array, sealed: Uint8Array): Promise<Uint8Array | null> {
    const key = await this.#key
    try {
      const text = await crypto.subtle.decrypt(
        algorithm(nonce, aad),
        key,
        sealed as Uint8Array<ArrayBuffer>,
      )
      return new Uint8Array(text)
    } catch {
      return null
    }
  }
}

function algorithm(nonce: Uint8Array, aad: Uint8Array) {
  return { name: 'ChaCha20-Poly1305', iv: nonce, additionalData: aad, tagLength: TAG_BYTES * 8 }
}

// ---- key agreement ----

/** DER before the raw key (RFC 8410). */
const X25519_PRIVATE = Buffer.from('302e020100300506032b656e04220420', 'hex')
const X25519_PUBLIC = Buffer.from('302a300506032b656e032100', 'hex')

export function newExchangePair(random: Random): ExchangePair {
  return exchangePairOf(random.bytes(KEY_BYTES))
}

export function exchangePairOf(secret: Uint8Array): ExchangePair {
  const spki = createPublicKey(privateKey(secret)).export({ type: 'spki', format: 'der' })
  return { secret, public: new Uint8Array(spki.subarray(spki.length - KEY_BYTES)) }
}

/**
 * The shared secret, 32 bytes. Null when `peer` is one of the few points that give zero with
 * every secret: who sends one of them wants a key that everybody knows.
 */
export function agree(secret: Uint8Array, peer: Uint8Array): Uint8Array | null {
  if (peer.length !== KEY_BYTES) return null
  try {
    const key = Buffer.concat([X25519_PUBLIC, peer])
    const shared = diffieHellman({
      privateKey: privateKey(secret),
      publicKey: createPublicKey({ key, format: 'der', type: 'spki' }),
    })
    return new Uint8Array(shared)
  } catch {
    // node:crypto refuses the secret that is all zero.
    return null
  }
}

function privateKey(secret: Uint8Array) {
  const key = Buffer.concat([X25519_PRIVATE, secret])
  return createPrivateKey({ key, format: 'der', type: 'pkcs8' })
}

// ---- hashes ----

export function sha256(...parts: readonly Uint8Array[]): Uint8Array {
  const hash = createHash('sha256')
  for (const part of parts) hash.update(part)
  return new Uint8Array(hash.digest())
}

export function hmac(key: Uint8Array, ...parts: readonly Uint8Array[]): Uint8Array {
  const mac = createHmac('sha256', key)
  for (const part of parts) mac.update(part)
  return new Uint8Array(mac.digest())
}

/** HKDF-SHA256 as Noise uses it: two or three keys of 32 bytes, without an info. */
export function hkdf(salt: Uint8Array, input: Uint8Array, count: 2 | 3): Uint8Array[] {
  const secret = hmac(salt, input)
  const keys: Uint8Array[] = []
  let last: Uint8Array = EMPTY
  for (let index = 1; index <= count; index += 1) {
    last = hmac(secret, last, Uint8Array.of(index))
    keys.push(last)
  }
  return keys
}

/** HKDF-SHA256 with a purpose: one key of 32 bytes. */
export function deriveKey(salt: Uint8Array, input: Uint8Array, purpose: string): Uint8Array {
  return hmac(hmac(salt, input), Buffer.from(purpose), Uint8Array.of(1))
}

/** In a time that tells nothing of where the first difference is. */
export function isSame(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && timingSafeEqual(a, b)
}
