/**
 * One letter in one sealed datagram, between two nodes that share a key nobody else has.
 *
 *     version 1 | type 1 | run 2 | to 4 | from 4 | nonce 24 | XChaCha20-Poly1305 | tag 16
 *     sealed: instance 6 | sequence 4 | letter
 *
 * `to` and `from` are the first four octets of the node ids, `run` the first two of the receiver's
 * instance, or zero while the sender does not know it. What stands before the nonce and all of that
 * instance are authenticated with the rest. So a packet is taken once (RFC 4303 section 3.4.3, with
 * 1,024 places), and only by the run that it is for: what was sent before the receiver started anew
 * is nothing to it. What cannot be opened gets no answer.
 */
import type { Clock } from '../base/clock.ts'
import { assert } from '../base/errors.ts'
import type { NodeId } from '../base/ids.ts'
import type { Random } from '../base/random.ts'
import type { WriterId } from '../config/merge.ts'
import type { Member, Self } from './contract.ts'
import { decodeLetter, encodeLetter, LETTER_BYTES_MAX, type Letter } from './letter.ts'
import { DATAGRAM_BYTES_MAX } from './network.ts'
import { agree, deriveKey, openX, sealX, TAG_BYTES, XNONCE_BYTES } from './seal.ts'

const VERSION = 1
const TYPE_LETTER = 1
const HEADER_BYTES = 12
const RUN_BYTES = 10
const SEALED_AT = HEADER_BYTES + XNONCE_BYTES
const PACKET_BYTES_MIN = SEALED_AT + RUN_BYTES + TAG_BYTES
/** Packets that may overtake one and it is still taken. */
const REPLAY_PLACES = 1_024

assert(
  PACKET_BYTES_MIN + LETTER_BYTES_MAX === DATAGRAM_BYTES_MAX,
  'the largest letter fits a packet to the octet',
)

export type Opened = {
  readonly from: NodeId
  readonly instance: WriterId
  readonly sequence: number
  /**
   * `next`: sent after everything that was taken before; `late`: overtaken, its news may be old;
   * `first`: it is for no run of ours, so that it may be from before this one; `rival`: of another
   * run of this node than the one known, and not of a later start. Only an answer to a fresh
   * question proves that the sender of these two lives.
   */
  readonly order: 'next' | 'late' | 'first' | 'rival'
  readonly letter: Letter
}

/** Why a packet was not taken; a label of the counter. */
export type Dropped = 'shape' | 'stranger' | 'forged' | 'outdated' | 'replayed'

/** `isMet`: it has sent something for our run, so that it is not from before. */
type Run = {
  readonly instance: WriterId
  epoch: number
  readonly window: ReplayWindow
  isMet: boolean
}

type Ally = {
  readonly member: Member
  readonly sid: number
  /** Undefined until it is needed; null: its public key is no key. */
  key: Uint8Array | null | undefined
  /** Ours to it. */
  sent: number
  run: Run | null
  /** The one before: what was taken of it is not taken again. */
  former: Run | null
}

/** The keys, sequences and replay windows of a node with its peers. */
export class Packets {
  readonly #self: Self
  readonly #clusterId: string
  readonly #random: Random
  readonly #sid: number
  readonly #allies = new Map<NodeId, Ally>()

  constructor(self: Self, clusterId: string, random: Random) {
    this.#self = self
    this.#clusterId = clusterId
    this.#random = random
    this.#sid = sidOf(self.node)
  }

  /** Speaks with these and nobody else from here on; the keys of all others are forgotten. */
  speakWith(peers: readonly Member[]): void {
    const kept = new Set(peers.map(({ node }) => node))
    for (const node of [...this.#allies.keys()]) if (!kept.has(node)) this.#allies.delete(node)
    for (const member of peers) {
      if (this.#allies.has(member.node)) continue
      this.#allies.set(member.node, {
        member,
        sid: sidOf(member.node),
        key: undefined,
        sent: 0,
        run: null,
        former: null,
      })
    }
  }

  /** For `run` of the peer; without one for the run that spoke with ours. Null: not a peer. */
  seal(node: NodeId, letter: Letter, run?: WriterId): Uint8Array | null {
    const ally = this.#allies.get(node)
    const key = ally === undefined ? null : this.#keyOf(ally)
    if (ally === undefined || key === null) return null
    ally.sent += 1
    assert(ally.sent < 2 ** 32, 'a process ends before its sequence does')
    const to = run ?? (ally.run?.isMet === true ? ally.run.instance : null)
    const header = Buffer.alloc(HEADER_BYTES)
    header[0] = VERSION
    header[1] = TYPE_LETTER
    header.writeUInt16BE(to === null ? 0 : tagOf(to), 2)
    header.writeUInt32BE(ally.sid, 4)
    header.writeUInt32BE(this.#sid, 8)
    const own = Buffer.alloc(RUN_BYTES)
    own.write(this.#self.instance, 0, 6, 'hex')
    own.writeUInt32BE(ally.sent, 6)
    // Random, not counted: a machine resumed from a snapshot would count the same again.
    const nonce = this.#random.bytes(XNONCE_BYTES)
    const sealed = sealX(key, nonce, bound(header, to), concat(own, encodeLetter(letter)))
    return concat(header, nonce, sealed)
  }

  open(packet: Uint8Array): Opened | Dropped {
    if (packet.length < PACKET_BYTES_MIN || packet.length > DATAGRAM_BYTES_MAX) return 'shape'
    const header = Buffer.from(packet.buffer, packet.byteOffset, HEADER_BYTES)
    if (header[0] !== VERSION || header[1] !== TYPE_LETTER) return 'shape'
    if (header.readUInt32BE(4) !== this.#sid) return 'stranger'
    const sid = header.readUInt32BE(8)
    const tag = header.readUInt16BE(2)
    const to = tag === 0 ? null : this.#self.instance
    if (to !== null && tag !== tagOf(to)) return 'outdated'
    let why: Dropped = 'stranger'
    for (const ally of this.#allies.values()) {
      if (ally.sid !== sid) continue
      why = 'forged'
      const key = this.#keyOf(ally)
      if (key === null) continue
      const nonce = packet.subarray(HEADER_BYTES, SEALED_AT)
      const plain = openX(key, nonce, bound(header, to), packet.subarray(SEALED_AT))
      if (plain !== null) return this.#take(ally, plain, to !== null)
    }
    return why
  }

  /** A rival of the known run has proved that it lives, and the known one does not. */
  adopt({ from, instance, sequence, letter }: Opened): void {
    const ally = this.#allies.get(from)
    if (ally === undefined) return
    const run = meet(ally, instance, epochOf(letter))
    run.isMet = true
    run.window.take(sequence)
  }

  #take(ally: Ally, plain: Uint8Array, isForUs: boolean): Opened | Dropped {
    const own = Buffer.from(plain.buffer, plain.byteOffset, RUN_BYTES)
    const letter = decodeLetter(plain.subarray(RUN_BYTES))
    if (letter === null) return 'shape'
    const instance = own.toString('hex', 0, 6)
    const sequence = own.readUInt32BE(6)
    const opened = { from: ally.member.node, instance, sequence, letter }
    const epoch = epochOf(letter)
    const known = ally.run
    if (known !== null && known.instance !== instance && epoch <= known.epoch) {
      const isFormer = ally.former?.instance === instance
      if (isFormer && ally.former?.window.take(sequence) === null) return 'replayed'
      return { ...opened, order: 'rival' }
    }
    const run = known?.instance === instance ? known : meet(ally, instance, epoch)
    const order = run.window.take(sequence)
    if (order === null) return 'replayed'
    // Refuting moves it on; what came before must not look like a later start.
    run.epoch = Math.max(run.epoch, epoch)
    if (!isForUs) return { ...opened, order: 'first' }
    run.isMet = true
    return { ...opened, order }
  }

  #keyOf(ally: Ally): Uint8Array | null {
    if (ally.key === undefined) {
      const secret = agree(this.#self.keys.exchange.secret, ally.member.exchange)
      const ends = [this.#self.node, ally.member.node].sort().join(' ')
      const salt = Buffer.from(this.#clusterId)
      ally.key = secret === null ? null : deriveKey(salt, secret, `udp ${ends}`)
    }
    return ally.key
  }
}

/** Everything of an earlier run is a rival from here on. */
function meet(ally: Ally, instance: WriterId, epoch: number): Run {
  const { run, former } = ally
  const isBack = former?.instance === instance
  ally.run = isBack ? former : { instance, epoch, window: new ReplayWindow(), isMet: false }
  ally.former = run
  return ally.run
}

/** Each number once, and none that is far behind the highest. */
export class ReplayWindow {
  #highest = 0
  readonly #places = new Uint32Array(REPLAY_PLACES)

  /** Null: taken before, or too old to know. */
  take(sequence: number): 'next' | 'late' | null {
    if (sequence === 0 || sequence <= this.#highest - REPLAY_PLACES) return null
    const place = sequence % REPLAY_PLACES
    if (this.#places[place] === sequence) return null
    this.#places[place] = sequence
    if (sequence < this.#highest) return 'late'
    this.#highest = sequence
    return 'next'
  }
}

/** Packets that a source may send at once and per second, before anything is computed for it. */
const SOURCE_RATE = 200
const SOURCES_MAX = 1_024

/** How much each source may make us compute, in bounded memory. */
export class Sources {
  readonly #clock: Clock
  /** By address, the one longest unseen first. */
  readonly #buckets = new Map<string, { left: number; atMono: number }>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** False: one too many. `isKnown`: a peer's address, which a flood of others cannot push out. */
  admit(host: string, isKnown: boolean): boolean {
    const nowMono = this.#clock.monoMs()
    const bucket = this.#buckets.get(host) ?? { left: SOURCE_RATE, atMono: nowMono }
    if (!this.#buckets.has(host) && !isKnown && !this.#hasRoom(nowMono)) return false
    const earned = ((nowMono - bucket.atMono) * SOURCE_RATE) / 1_000
    bucket.left = Math.min(SOURCE_RATE, bucket.left + earned)
    bucket.atMono = nowMono
    this.#buckets.delete(host)
    this.#buckets.set(host, bucket)
    if (bucket.left < 1) return false
    bucket.left -= 1
    return true
  }

  /** Makes room by forgetting who was silent for a second: its bucket would be full again. */
  #hasRoom(nowMono: number): boolean {
    for (const [host, { atMono }] of this.#buckets) {
      if (this.#buckets.size < SOURCES_MAX || nowMono - atMono < 1_000) break
      this.#buckets.delete(host)
    }
    return this.#buckets.size < SOURCES_MAX
  }
}

function sidOf(node: NodeId): number {
  return Number.parseInt(node.slice(0, 8), 16)
}

/** How the header names the run that a packet is for; never 0. */
function tagOf(instance: WriterId): number {
  return Number.parseInt(instance.slice(0, 4), 16) || 1
}

/** What is authenticated beside the sealed part. */
function bound(header: Uint8Array, to: WriterId | null): Uint8Array {
  return to === null ? header : concat(header, Buffer.from(to, 'hex'))
}

/** The start that it is from, as its incarnation has it. */
export function epochOf({ incarnation }: Pick<Letter, 'incarnation'>): number {
  return Math.floor(incarnation / 0x1_0000)
}

function concat(...parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0))
  let at = 0
  for (const part of parts) {
    whole.set(part, at)
    at += part.length
  }
  return whole
}
