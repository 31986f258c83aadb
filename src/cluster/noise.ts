/**
 * Handshakes of the Noise Protocol Framework, revision 34, in the suite 25519_ChaChaPoly_SHA256.
 * The nodes use IK and IKpsk2; NN and XX are here so that more published vectors prove the machine
 * that runs them all.
 */
import { assert } from '../base/errors.ts'
import type { Random } from '../base/random.ts'
import { KEY_BYTES } from './keys.ts'
import {
  agree,
  type ExchangePair,
  HASH_BYTES,
  hkdf,
  newExchangePair,
  open,
  seal,
  sealGcm,
  sha256,
  TAG_BYTES,
} from './seal.ts'

type Token = 'e' | 's' | 'ee' | 'es' | 'se' | 'ss' | 'psk'
type Shape = {
  /** Whether the initiator knows the responder's static key before. */
  readonly isKnown: boolean
  readonly messages: readonly (readonly Token[])[]
}

/** Section 7.4 and, with psk, section 9. */
const PATTERNS = {
  NN: { isKnown: false, messages: [['e'], ['e', 'ee']] },
  XX: { isKnown: false, messages: [['e'], ['e', 'ee', 's', 'es'], ['s', 'se']] },
  IK: {
    isKnown: true,
    messages: [
      ['e', 'es', 's', 'ss'],
      ['e', 'ee', 'se'],
    ],
  },
  IKpsk2: {
    isKnown: true,
    messages: [
      ['e', 'es', 's', 'ss'],
      ['e', 'ee', 'se', 'psk'],
    ],
  },
} as const satisfies Record<string, Shape>

export type Pattern = keyof typeof PATTERNS

export type HandshakeOptions = {
  readonly pattern: Pattern
  readonly initiator: boolean
  /** What both sides must agree on without sending it. */
  readonly prologue: Uint8Array
  readonly own: ExchangePair | null
  /** The static key of the other side, where the pattern wants it known. */
  readonly peer: Uint8Array | null
  /** 32 bytes, for the psk patterns. */
  readonly psk: Uint8Array | null
}

/** What a finished handshake leaves: one key a direction, and what both sides saw. */
export type Secrets = {
  readonly send: Uint8Array
  readonly receive: Uint8Array
  /** Unique to this handshake, the same on both sides. */
  readonly hash: Uint8Array
  /** The static key that the other side proved to hold; null in patterns without. */
  readonly peer: Uint8Array | null
}

const NO_BYTES = new Uint8Array(0)
/** Section 5.1: kept for the next key, the same in either order of octets. */
const LAST_NONCE = new Uint8Array(12).fill(255, 4)
/** Noise section 3. */
const MESSAGE_BYTES_MAX = 65_535

/** One run of one pattern. Messages alternate, the initiator's comes first. */
export class Handshake {
  readonly #options: HandshakeOptions
  readonly #shape: Shape
  readonly #random: Random
  readonly #symmetric: Symmetric
  #ephemeral: ExchangePair | null = null
  #peerEphemeral: Uint8Array | null = null
  #peer: Uint8Array | null
  #step = 0
  #isDead = false

  constructor(options: HandshakeOptions, random: Random) {
    const shape: Shape = PATTERNS[options.pattern]
    this.#options = options
    this.#shape = shape
    this.#random = random
    this.#peer = options.peer
    const { initiator, own, peer, pattern } = options
    this.#symmetric = new Symmetric(`Noise_${pattern}_25519_ChaChaPoly_SHA256`)
    this.#symmetric.mixHash(options.prologue)
    if (!shape.isKnown) return
    const known = initiator ? peer : own?.public
    assert(known !== null && known !== undefined, 'a key that the pattern wants known is given')
    this.#symmetric.mixHash(known)
  }

  /** The static key of the other side: given before, or read by now. */
  get peer(): Uint8Array | null {
    return this.#peer
  }

  /** The next message, our turn. Null: the other side's key is worthless; nothing goes on. */
  write(payload: Uint8Array): Uint8Array | null {
    const tokens = this.#turn(true)
    const parts: Uint8Array[] = []
    for (const token of tokens) {
      if (token === 'e') {
        this.#ephemeral = newExchangePair(this.#random)
        parts.push(this.#ephemeral.public)
        this.#mixEphemeral(this.#ephemeral.public)
      } else if (token === 's') {
        assert(this.#options.own !== null, 'a pattern with s has a static key')
        parts.push(this.#symmetric.seal(this.#options.own.public))
      } else if (!this.#mix(token)) return this.#die()
    }
    parts.push(this.#symmetric.seal(payload))
    const message = new Uint8Array(Buffer.concat(parts))
    assert(message.length <= MESSAGE_BYTES_MAX, 'a handshake message fits into its bound')
    return message
  }

  /** The payload of the other side's message. Null: not from who we want; nothing goes on. */
  read(message: Uint8Array): Uint8Array | null {
    const tokens = this.#turn(false)
    if (message.length > MESSAGE_BYTES_MAX) return this.#die()
    let at = 0
    for (const token of tokens) {
      if (token === 'e') {
        if (message.length < at + KEY_BYTES) return this.#die()
        this.#peerEphemeral = message.slice(at, at + KEY_BYTES)
        at += KEY_BYTES
        this.#mixEphemeral(this.#peerEphemeral)
      } else if (token === 's') {
        const bytes = KEY_BYTES + (this.#symmetric.hasKey ? TAG_BYTES : 0)
        if (message.length < at + bytes) return this.#die()
        this.#peer = this.#symmetric.open(message.slice(at, at + bytes))
        at += bytes
        if (this.#peer === null) return this.#die()
      } else if (!this.#mix(token)) return this.#die()
    }
    return this.#symmetric.open(message.slice(at)) ?? this.#die()
  }

  get isFinished(): boolean {
    return !this.#isDead && this.#step === this.#shape.messages.length
  }

  /** Once, after the last message. */
  split(): Secrets {
    assert(this.isFinished, 'only a finished handshake has keys')
    this.#isDead = true
    const [first, second] = this.#symmetric.split()
    const { initiator } = this.#options
    return {
      send: initiator ? first : second,
      receive: initiator ? second : first,
      hash: this.#symmetric.hash,
      peer: this.#peer,
    }
  }

  #turn(ours: boolean): readonly Token[] {
    assert(!this.#isDead, 'a handshake that failed is over')
    assert((this.#step % 2 === 0) === (ours === this.#options.initiator), 'messages alternate')
    const tokens = this.#shape.messages[this.#step]
    assert(tokens !== undefined, 'a finished handshake has no message left')
    this.#step += 1
    return tokens
  }

  #die(): null {
    this.#isDead = true
    return null
  }

  #mixEphemeral(key: Uint8Array): void {
    this.#symmetric.mixHash(key)
    // Section 9.2: with a psk the ephemeral keys make the encryption unique.
    if (this.#options.pattern.includes('psk')) this.#symmetric.mixKey(key)
  }

  #mix(token: Exclude<Token, 'e' | 's'>): boolean {
    if (token === 'psk') {
      const { psk } = this.#options
      assert(psk?.length === KEY_BYTES, 'a psk pattern has a psk of 32 bytes')
      this.#symmetric.mixKeyAndHash(psk)
      return true
    }
    // The first letter is the initiator's key, the second one the responder's.
    const [initiators, responders] = token
    const [mine, theirs] = this.#options.initiator
      ? [initiators, responders]
      : [responders, initiators]
    const secret = mine === 'e' ? this.#ephemeral?.secret : this.#options.own?.secret
    const key = theirs === 'e' ? this.#peerEphemeral : this.#peer
    assert(secret !== undefined && key !== null, 'the pattern brings its keys in order')
    const shared = agree(secret, key)
    if (shared === null) return false
    this.#symmetric.mixKey(shared)
    return true
  }
}

/** Section 5.2. */
class Symmetric {
  #hash: Uint8Array
  #chain: Uint8Array
  #key: Uint8Array | null = null
  #count = 0

  constructor(name: string) {
    const bytes = new TextEncoder().encode(name)
    this.#hash = new Uint8Array(HASH_BYTES)
    if (bytes.length <= HASH_BYTES) this.#hash.set(bytes)
    else this.#hash = sha256(bytes)
    this.#chain = this.#hash
  }

  get hash(): Uint8Array {
    return this.#hash
  }

  get hasKey(): boolean {
    return this.#key !== null
  }

  mixHash(bytes: Uint8Array): void {
    this.#hash = sha256(this.#hash, bytes)
  }

  mixKey(input: Uint8Array): void {
    const [chain, key] = hkdf(this.#chain, input, 2) as [Uint8Array, Uint8Array]
    this.#chain = chain
    this.#setKey(key)
  }

  mixKeyAndHash(input: Uint8Array): void {
    const [chain, hash, key] = hkdf(this.#chain, input, 3) as [Uint8Array, Uint8Array, Uint8Array]
    this.#chain = chain
    this.mixHash(hash)
    this.#setKey(key)
  }

  /** Before there is a key the text goes as it is. */
  seal(text: Uint8Array): Uint8Array {
    const sealed =
      this.#key === null ? text : seal(this.#key, nonceOf(this.#count), this.#hash, text)
    this.#count += 1
    this.mixHash(sealed)
    return sealed
  }

  open(sealed: Uint8Array): Uint8Array | null {
    const text =
      this.#key === null ? sealed : open(this.#key, nonceOf(this.#count), this.#hash, sealed)
    this.#count += 1
    this.mixHash(sealed)
    return text
  }

  split(): readonly [Uint8Array, Uint8Array] {
    return hkdf(this.#chain, NO_BYTES, 2) as [Uint8Array, Uint8Array]
  }

  #setKey(key: Uint8Array): void {
    this.#key = key
    this.#count = 0
  }
}

/** Section 12: four zero octets, then the counter, little-endian. */
export function nonceOf(count: number): Uint8Array {
  const nonce = new Uint8Array(12)
  const view = new DataView(nonce.buffer)
  view.setUint32(4, count >>> 0, true)
  view.setUint32(8, Math.floor(count / 0x1_0000_0000), true)
  return nonce
}

/** Section 12: as `nonceOf` for AESGCM, big-endian. */
export function nonceOfGcm(count: number): Uint8Array {
  const nonce = new Uint8Array(12)
  const view = new DataView(nonce.buffer)
  view.setUint32(4, Math.floor(count / 0x1_0000_0000))
  view.setUint32(8, count >>> 0)
  return nonce
}

/** Section 11.3: the next key of one direction; there is no way back from it. */
export function nextKey(key: Uint8Array): Uint8Array {
  return seal(key, LAST_NONCE, NO_BYTES, new Uint8Array(KEY_BYTES)).slice(0, KEY_BYTES)
}

/** As `nextKey` for AESGCM. */
export function nextKeyGcm(key: Uint8Array): Uint8Array {
  return new Uint8Array(sealGcm(key, LAST_NONCE, NO_BYTES, new Uint8Array(KEY_BYTES))[0])
}
