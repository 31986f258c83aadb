/** Branded identifiers: a NodeId cannot be passed where a MessageId is meant. */
import type { Clock } from './clock.ts'
import { assert } from './errors.ts'
import type { Random } from './random.ts'
import { randomHex } from './random.ts'

declare const brand: unique symbol
type Branded<Name extends string> = string & { readonly [brand]: Name }

/** 16 lowercase hex digits, random at init; never derived from a hostname. */
export type NodeId = Branded<'NodeId'>
/** 16 lowercase hex digits, random for each data directory. */
export type SpoolId = Branded<'SpoolId'>
/**
 * 26 characters of lowercase base32 (Crockford's alphabet), sorts by time of arrival:
 * 48-bit ms, 32-bit node, 48-bit sequence (16-bit epoch of the process, 32-bit count).
 * It is the queue id in logs and in `250 2.0.0 <mid>`.
 */
export type MessageId = Branded<'MessageId'>

const ALPHABET = '0123456789abcdefghjkmnpqrstvwxyz'

/** Accepts 16 lowercase hex digits; anything else is null. */
export function parseNodeId(text: string): NodeId | null {
  return /^[0-9a-f]{16}$/.test(text) ? (text as NodeId) : null
}

/** Accepts 26 characters of the alphabet, first one 0..7; anything else is null. */
export function parseMessageId(text: string): MessageId | null {
  return /^[0-7][0-9a-hjkmnp-tv-z]{25}$/.test(text) ? (text as MessageId) : null
}

export function newNodeId(random: Random): NodeId {
  return randomHex(random, 8) as NodeId
}

export function newSpoolId(random: Random): SpoolId {
  return randomHex(random, 8) as SpoolId
}

/** Makes message ids that are never reused: by node, by start of the process, by count. */
export class MessageIds {
  readonly #clock: Clock
  readonly #tail: bigint
  #count = 0

  /** `epoch` counts the starts of this node, 1..65535 (it wraps; the time keeps ids apart). */
  constructor(node: NodeId, epoch: number, clock: Clock) {
    this.#clock = clock
    const word = BigInt(Number.parseInt(node.slice(0, 8), 16))
    this.#tail = (word << 48n) | (BigInt(epoch & 0xffff) << 32n)
  }

  next(): MessageId {
    this.#count += 1
    assert(this.#count < 0x1_0000_0000, 'fewer than 2^32 messages in one run')
    const value = (BigInt(this.#clock.wallMs()) << 80n) | this.#tail | BigInt(this.#count)
    return encodeBase32(value) as MessageId
  }
}

function encodeBase32(value: bigint): string {
  let text = ''
  // Words of 25 bits: plain number arithmetic is ten times quicker than bigint digit by digit.
  for (let shift = 125n; shift >= 0n; shift -= 25n) {
    const word = Number((value >> (shift > 0n ? shift - 20n : 0n)) & 0x1ff_ffffn)
    if (shift === 0n) text += ALPHABET[word & 31]
    else {
      text +=
        (ALPHABET[word >> 20] ?? '') +
        (ALPHABET[(word >> 15) & 31] ?? '') +
        (ALPHABET[(word >> 10) & 31] ?? '') +
        (ALPHABET[(word >> 5) & 31] ?? '') +
        (ALPHABET[word & 31] ?? '')
    }
  }
  return text
}
