/**
 * How two nodes come to a channel: a gate that costs a stranger's caller one hash, then one Noise
 * handshake. Links between members and joins are both built on it.
 *
 * Client's first bytes: `PST1` | purpose 1 | protocol min 1 | max 1 | token 6 (joins only) |
 * mac 16 | Noise message 1. Answer: Noise message 2. All of it has a fixed length, so that a
 * stranger cannot claim one. Then frames, from the client first: a link counts as open at the
 * called side when its first frame opens, so a repeated first message opens none.
 */
import type { Timer } from '../base/clock.ts'
import { assert, GatewayError, messageOf } from '../base/errors.ts'
import { type ChannelDeps, SecureChannel } from './channel.ts'
import type { Network, PeerAddress, Stream, StreamHandlers } from './contract.ts'
import { Inbox, joinBytes } from './inbox.ts'
import { KEY_BYTES } from './keys.ts'
import { Handshake } from './noise.ts'
import { type ExchangePair, hmac, isSame, sha256, TAG_BYTES } from './seal.ts'

/** What each side says of itself inside the handshake, always this long. */
const GREETING_BYTES = 24
export const TOKEN_ID_BYTES = 6
const DIAL_MS_MAX = 5_000
const HANDSHAKE_MS_MAX = 5_000
/** Connections that have not proved themselves yet. The oldest stranger gives way. */
const HALF_OPEN_MAX = 256
/** Handshakes that cost more than a hash, of one address: at once, and each second. */
const HANDSHAKES_PER_S = 20
const SOURCES_MAX = 4_096

const MAGIC = Uint8Array.of(0x50, 0x53, 0x54, 0x31)
const PURPOSE = { IK: 1, IKpsk2: 2 } as const
const MAC_BYTES = 16
const FIRST_BYTES = 2 * KEY_BYTES + TAG_BYTES + GREETING_BYTES + TAG_BYTES
/** protocol 1 | min 1 | max 1 | refusal 1 | greeting */
const ANSWER_BYTES = 4 + GREETING_BYTES
const SECOND_BYTES = KEY_BYTES + ANSWER_BYTES + TAG_BYTES
const NO_BYTES = new Uint8Array(0)

/** Why somebody who proved a key is refused; told to him. Places are the wire's. */
export const REFUSALS = [
  'none',
  'version',
  'unknown',
  'left',
  'evicted',
  'standing',
  'twin',
] as const
export type Refusal = Exclude<(typeof REFUSALS)[number], 'none'>

/** A refusal that this version does not know is one all the same. */
export function refusalOf(code: number): Refusal {
  const known = REFUSALS[code]
  return known === undefined || known === 'none' ? 'version' : known
}

export type ProtocolRange = { readonly min: number; readonly max: number }

export type Purpose =
  | { readonly pattern: 'IK' }
  /** Token id: 6 bytes, in clear. psk: 32 bytes. */
  | { readonly pattern: 'IKpsk2'; readonly tokenId: Uint8Array; readonly psk: Uint8Array }

export type ChannelOptions = {
  readonly own: ExchangePair
  readonly clusterId: string
  readonly protocol: ProtocolRange
  /** Long frames are sealed on other threads; false: all in order, synchronous. */
  readonly parallelCrypto: boolean
}

export type DialOptions = ChannelOptions & {
  readonly purpose: Purpose
  /** The static key that must be at the other end. */
  readonly peer: Uint8Array
  /** At most 24 bytes; zeros follow. */
  readonly greeting: Uint8Array
  /** Gives up what is not connected yet; a handshake goes on. */
  readonly signal?: AbortSignal
}

/**
 * `unreachable`: no connection; `hungUp`: closed during the handshake, as everybody does who has
 * another key, another cluster or is no node; `silent`: no answer in time; `wrongKey`: an answer
 * of somebody who does not hold the key; `refused`: the right node said no.
 */
export type DialFailure = 'unreachable' | 'hungUp' | 'silent' | 'wrongKey' | 'refused'

export class ChannelError extends GatewayError {
  override name = 'ChannelError'
  readonly failure: DialFailure
  /** With `refused` only. */
  readonly refusal: Refusal | null
  /** What the other side speaks, where it said so. */
  readonly protocol: ProtocolRange | null

  constructor(
    failure: DialFailure,
    message: string,
    said: { readonly refusal: Refusal; readonly protocol: ProtocolRange } | null = null,
  ) {
    super(message, { remedy: 'retry' })
    this.failure = failure
    this.refusal = said?.refusal ?? null
    this.protocol = said?.protocol ?? null
  }
}

// ---- the handshake, from the side that dials ----

/** Of a connection that came after it was given up. */
const NOBODY: StreamHandlers = { received: () => {}, drained: () => {}, closed: () => {} }

/**
 * A channel with whoever holds `options.peer`. @throws ChannelError when there is none within
 * 5 s for the connection and 5 s for the handshake
 */
export function dialSecure(
  network: Network,
  address: PeerAddress,
  options: DialOptions,
  deps: ChannelDeps,
): Promise<SecureChannel> {
  const { signal } = options
  return new Promise((resolve, reject) => {
    let isOpen = false
    signal?.addEventListener('abort', () => {
      if (!isOpen) reject(new ChannelError('unreachable', 'no answer, given up for a new attempt'))
    })
    const open = (stream: Stream): StreamHandlers => {
      isOpen = signal?.aborted !== true
      if (!isOpen) stream.terminate()
      return isOpen ? openDialled(stream, options, deps, resolve, reject) : NOBODY
    }
    network
      .dial(address, open, DIAL_MS_MAX)
      .catch((error) => reject(new ChannelError('unreachable', messageOf(error))))
  })
}

function openDialled(
  stream: Stream,
  options: DialOptions,
  deps: ChannelDeps,
  resolve: (channel: SecureChannel) => void,
  reject: (error: ChannelError) => void,
): StreamHandlers {
  const inbox = new Inbox()
  let channel: SecureChannel | null = null
  let isOver = false
  const fail = (error: ChannelError): void => {
    if (isOver) return
    isOver = true
    timer.cancel()
    stream.terminate()
    reject(error)
  }
  const timer = deps.clock.after(HANDSHAKE_MS_MAX, () =>
    fail(new ChannelError('silent', 'connected, but no answer to the handshake')),
  )
  const { purpose, protocol, peer } = options
  const clear = clearBytes(purpose, protocol)
  const handshake = handshakeOf(true, clear, purpose, peer, options, deps)
  const first = handshake.write(padded(options.greeting))
  if (first === null) fail(wrongKey())
  else {
    const mac = hmac(gateKey(peer, purpose), clear, first).subarray(0, MAC_BYTES)
    stream.write(joinBytes(clear, mac, first))
  }
  return {
    received: (bytes) => {
      if (channel !== null) return channel.received(bytes)
      if (isOver) return
      inbox.push(bytes)
      const second = inbox.take(SECOND_BYTES)
      if (second === null) return
      const answer = handshake.read(second.slice())
      if (answer === null) return fail(wrongKey())
      const [chosen = 0, min = 0, max = 0, refusal = 0] = answer
      if (refusal !== 0 || chosen < protocol.min || chosen > protocol.max) {
        const said = refusalOf(refusal)
        return fail(new ChannelError('refused', said, { refusal: said, protocol: { min, max } }))
      }
      isOver = true
      timer.cancel()
      const facts = { peer, protocol: chosen, greeting: answer.slice(4) }
      const { parallelCrypto } = options
      channel = new SecureChannel(
        stream,
        inbox,
        handshake.split(),
        facts,
        { parallelCrypto, confirmed: null },
        deps,
      )
      resolve(channel)
    },
    drained: () => channel?.drained(),
    closed: (why) => {
      if (channel !== null) channel.lost(why)
      else fail(new ChannelError('hungUp', `connected, but hung up in the handshake (${why})`))
    },
  }
}

function wrongKey(): ChannelError {
  return new ChannelError('wrongKey', 'answered by somebody who does not hold the key')
}

// ---- the handshake, from the side that is called ----

export type GateOptions = ChannelOptions & {
  /**
   * A member's key was proved, nothing else: what to say of ourselves, and why to refuse it.
   * Null: hang up without a word.
   */
  readonly greet: (
    peer: Uint8Array,
    greeting: Uint8Array,
  ) => { readonly greeting: Uint8Array; readonly refusal: Refusal | null } | null
  /** Both sides have proved everything, and it is no replay. */
  readonly opened: (channel: SecureChannel) => void
  readonly onJoin: JoinGate | null
}

/** What the gate must know of join tokens. */
export type JoinGate = {
  /** 32 bytes; null: there is no such token, or not any more. */
  pskOf(tokenId: Uint8Array): Uint8Array | null
  /** Who knows the token, but not all of it, tried: count it. */
  failed(tokenId: Uint8Array): void
  opened(channel: SecureChannel, tokenId: Uint8Array, joiner: Uint8Array): void
}

type Caller = {
  readonly stream: Stream
  readonly inbox: Inbox
  readonly deadline: Timer
  /** Whether it knew the key that it calls. */
  isKnown: boolean
  channel: SecureChannel | null
  isOver: boolean
}

/** Everybody who connects, until they are a channel. */
export class Gate {
  readonly #options: GateOptions
  readonly #deps: ChannelDeps
  readonly #key: Uint8Array
  /** Half open, the oldest first. */
  readonly #callers = new Set<Caller>()
  readonly #sources = new Map<string, { left: number; atMono: number }>()

  constructor(options: GateOptions, deps: ChannelDeps) {
    this.#options = options
    this.#deps = deps
    this.#key = gateKey(options.own.public, { pattern: 'IK' })
  }

  get halfOpen(): number {
    return this.#callers.size
  }

  accept(stream: Stream): StreamHandlers {
    if (this.#callers.size >= HALF_OPEN_MAX) this.#makeRoom()
    const caller: Caller = {
      stream,
      inbox: new Inbox(),
      deadline: this.#deps.clock.after(HANDSHAKE_MS_MAX, () => this.#refuse(caller, 'silent')),
      isKnown: false,
      channel: null,
      isOver: false,
    }
    this.#callers.add(caller)
    return {
      received: (bytes) => {
        if (caller.channel !== null) return caller.channel.received(bytes)
        if (!caller.isOver) this.#received(caller, bytes)
      },
      drained: () => caller.channel?.drained(),
      closed: (why) => {
        this.#settle(caller)
        caller.isOver = true
        caller.channel?.lost(why)
      },
    }
  }

  close(): void {
    for (const caller of this.#callers) this.#refuse(caller, 'closing')
  }

  /** Cheap before dear: four octets, a length, one hash, a budget; only then key agreement. */
  #received(caller: Caller, bytes: Uint8Array): void {
    const { inbox } = caller
    inbox.push(bytes)
    const start = inbox.peek(Math.min(inbox.length, MAGIC.length)) ?? NO_BYTES
    if (start.some((octet, index) => octet !== MAGIC[index])) {
      return this.#refuse(caller, 'stranger')
    }
    const [purpose] = inbox.peek(MAGIC.length + 1)?.subarray(MAGIC.length) ?? []
    if (purpose === undefined) return
    const isJoin = purpose === PURPOSE.IKpsk2
    if (!isJoin && purpose !== PURPOSE.IK) return this.#refuse(caller, 'stranger')
    const clearLength = MAGIC.length + 3 + (isJoin ? TOKEN_ID_BYTES : 0)
    const all = inbox.take(clearLength + MAC_BYTES + FIRST_BYTES)?.slice()
    if (all === undefined) return
    // It has to wait for our answer before it has more to say.
    if (inbox.length > 0) return this.#refuse(caller, 'stranger')
    const clear = all.subarray(0, clearLength)
    const mac = all.subarray(clearLength, clearLength + MAC_BYTES)
    const first = all.subarray(clearLength + MAC_BYTES)
    const known = this.#purposeOf(isJoin, clear)
    if (known === null) return this.#refuse(caller, 'token')
    const key = isJoin ? gateKey(this.#options.own.public, known) : this.#key
    if (!isSame(hmac(key, clear, first).subarray(0, MAC_BYTES), mac)) {
      return this.#refuse(caller, 'stranger')
    }
    if (!this.#spend(caller.stream.remote.host)) return this.#refuse(caller, 'rate')
    caller.isKnown = true
    this.#answer(caller, known, clear, first)
  }

  #purposeOf(isJoin: boolean, clear: Uint8Array): Purpose | null {
    if (!isJoin) return { pattern: 'IK' }
    const tokenId = clear.slice(-TOKEN_ID_BYTES)
    const psk = this.#options.onJoin?.pskOf(tokenId) ?? null
    return psk === null ? null : { pattern: 'IKpsk2', tokenId, psk }
  }

  #answer(caller: Caller, purpose: Purpose, clear: Uint8Array, first: Uint8Array): void {
    const options = this.#options
    const handshake = handshakeOf(false, clear, purpose, null, options, this.#deps)
    const greeting = handshake.read(first)
    const { peer } = handshake
    if (greeting === null || greeting.length !== GREETING_BYTES || peer === null) {
      if (purpose.pattern === 'IKpsk2') options.onJoin?.failed(purpose.tokenId)
      return this.#refuse(caller, 'handshake')
    }
    const reply =
      purpose.pattern === 'IK'
        ? options.greet(peer, greeting)
        : { greeting: NO_BYTES, refusal: null }
    if (reply === null) return this.#refuse(caller, 'replay')
    const { min, max } = options.protocol
    const [theirMin = 0, theirMax = 0] = clear.subarray(MAGIC.length + 1)
    const protocol = Math.min(max, theirMax)
    const isCommon = protocol >= min && protocol >= theirMin
    const refusal = reply.refusal ?? (isCommon ? null : 'version')
    const said = [isCommon ? protocol : 0, min, max, REFUSALS.indexOf(refusal ?? 'none')]
    const second = handshake.write(joinBytes(Uint8Array.from(said), padded(reply.greeting)))
    if (second === null) return this.#refuse(caller, 'handshake')
    caller.stream.write(second)
    if (refusal !== null) {
      this.#deps.observer.emit('gate.refused', { remote: caller.stream.remote.host, why: refusal })
      caller.isOver = true
      // The deadline stays: it ends whoever does not hang up.
      return caller.stream.end()
    }
    const channel = new SecureChannel(
      caller.stream,
      caller.inbox,
      handshake.split(),
      { peer, protocol, greeting },
      {
        parallelCrypto: options.parallelCrypto,
        confirmed: () => {
          this.#settle(caller)
          if (purpose.pattern === 'IK') options.opened(channel)
          else options.onJoin?.opened(channel, purpose.tokenId, peer)
        },
      },
      this.#deps,
    )
    caller.channel = channel
  }

  /** A token bucket for each address. */
  #spend(host: string): boolean {
    const nowMono = this.#deps.clock.monoMs()
    const before = this.#sources.get(host)
    const gained = before === undefined ? 0 : ((nowMono - before.atMono) / 1_000) * HANDSHAKES_PER_S
    const left = Math.min(HANDSHAKES_PER_S, (before?.left ?? HANDSHAKES_PER_S) + gained)
    this.#sources.delete(host)
    this.#sources.set(host, { left: left < 1 ? left : left - 1, atMono: nowMono })
    if (this.#sources.size > SOURCES_MAX) {
      const [oldest] = this.#sources.keys()
      if (oldest !== undefined) this.#sources.delete(oldest)
    }
    return left >= 1
  }

  #makeRoom(): void {
    const callers = [...this.#callers]
    const oldest = callers.find(({ isKnown }) => !isKnown) ?? callers[0]
    if (oldest !== undefined) this.#refuse(oldest, 'crowd')
  }

  #refuse(caller: Caller, why: string): void {
    this.#settle(caller)
    if (!caller.isOver) {
      this.#deps.observer.emit('gate.refused', { remote: caller.stream.remote.host, why })
    }
    caller.isOver = true
    caller.channel?.terminate('not confirmed in time')
    caller.stream.terminate()
  }

  #settle(caller: Caller): void {
    caller.deadline.cancel()
    this.#callers.delete(caller)
  }
}

// ---- what both sides compute ----

function clearBytes(purpose: Purpose, { min, max }: ProtocolRange): Uint8Array {
  const tokenId = purpose.pattern === 'IKpsk2' ? purpose.tokenId : NO_BYTES
  return joinBytes(MAGIC, Uint8Array.of(PURPOSE[purpose.pattern], min, max), tokenId)
}

/** Who does not know whom it calls, or the token, cannot make us compute more than a hash. */
function gateKey(responder: Uint8Array, purpose: Purpose): Uint8Array {
  const psk = purpose.pattern === 'IKpsk2' ? purpose.psk : NO_BYTES
  return sha256(new TextEncoder().encode('postern/1 gate'), responder, psk)
}

function handshakeOf(
  initiator: boolean,
  clear: Uint8Array,
  purpose: Purpose,
  peer: Uint8Array | null,
  { own, clusterId }: ChannelOptions,
  { random }: ChannelDeps,
): Handshake {
  // What was sent in clear is in the prologue: who changes it breaks the handshake.
  const prologue = joinBytes(new TextEncoder().encode(`postern/1 ${clusterId} `), clear)
  const psk = purpose.pattern === 'IKpsk2' ? purpose.psk : null
  return new Handshake({ pattern: purpose.pattern, initiator, prologue, own, peer, psk }, random)
}

function padded(greeting: Uint8Array): Uint8Array {
  assert(greeting.length <= GREETING_BYTES, 'a greeting fits into its bound')
  const bytes = new Uint8Array(GREETING_BYTES)
  bytes.set(greeting)
  return bytes
}
