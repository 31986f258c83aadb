/**
 * An authenticated, encrypted pipe of messages over a stream of bytes: what is left when a
 * handshake is over. Frames: `length 3 | type 1 | ciphertext | tag 16`; the length counts
 * ciphertext and tag, the first four octets are authenticated, the nonce is a counter. The cipher
 * is ChaChaPoly as in the handshake, from protocol 2 on AESGCM (Noise section 12): it costs a node
 * that copies its mail a tenth.
 */
import type { Timer } from '../base/clock.ts'
import { assert, messageOf } from '../base/errors.ts'
import { giveBack } from '../base/memory.ts'
import { type ClusterDeps, MESSAGE_BYTES_MAX, type PeerAddress, type Stream } from './contract.ts'
import { type Inbox, joinBytes } from './inbox.ts'
import { nextKey, nextKeyGcm, nonceOf, nonceOfGcm, type Secrets } from './noise.ts'
import { open, openGcm, seal, sealGcm, TAG_BYTES, ThreadedKey } from './seal.ts'

/** One frame on the wire, all of it. */
const FRAME_BYTES_MAX = 64 * 1024
/** What waits to be sent; beyond it `send` is false. */
export const BACKLOG_BYTES_MAX = 8 * 1024 * 1024
/** Six bits of the frame; 0 is the channel's own. */
const TYPE_MAX = 63

/** The end of the backlog that bodies of mail cannot fill: a beat always has room. */
const BULK_BYTES_MAX = BACKLOG_BYTES_MAX - 2 * 1024 * 1024
/** What arrives before anybody listens. */
const HELD_BYTES_MAX = 1024 * 1024
const HEADER_BYTES = 4
const TEXT_BYTES_MAX = FRAME_BYTES_MAX - HEADER_BYTES - TAG_BYTES
/** The first protocol whose frames are sealed by AESGCM. */
const GCM_PROTOCOL = 2
/** From here on WebCrypto is quicker than noble. */
const THREADED_BYTES_MIN = 16 * 1024
/** Frames on other threads at a time: outwards, where the rest waits in the backlog. */
const SEALING_MAX = 16
/** Inwards: as many as one read brings of bodies. More are done here, which slows the sender. */
const OPENING_MAX = 128

/** Where frames are put together: a link of bodies would fill new memory all the time. */
const FRAME = new Uint8Array(FRAME_BYTES_MAX)

const MORE = 0x80
const BULK = 0x40
/** First octet of a frame of type 0; a notice has a second one. */
const CONTROL = { confirm: 0, rekey: 1, notice: 2 } as const

/**
 * A direction takes its next key after so many frames or so long. The key is derived (Noise
 * section 11.3) instead of agreed again: who reads a key out of the memory of a node reads its
 * static key too and would be in the next agreement. What matters is that frames of the past
 * cannot be read, and there is no way back from a derived key.
 */
const REKEY_FRAMES = 2 ** 20
const REKEY_MS = 120_000
/** Wall time less monotonic time moves by this: asleep, or a copy of a running machine. */
const JUMP_MS = 2_000

const END_MS_MAX = 5_000

export type ChannelDeps = Pick<ClusterDeps, 'clock' | 'random' | 'observer'>

export type ChannelHandlers = {
  /** The body is the listener's own. */
  message(type: number, body: Uint8Array): void
  /** One octet that waited behind nothing. */
  notice?(code: number): void
  /** Once; nothing follows. */
  closed(why: string): void
}

type Facts = {
  readonly peer: Uint8Array
  readonly protocol: number
  readonly greeting: Uint8Array
}
type Waiting = { readonly type: number; body: Uint8Array; at: number }
type Lane = { type: number; parts: Uint8Array[]; bytes: number }
/** A place in the order; `bytes` null: another thread has it. */
type Place = { readonly type: number; bytes: Uint8Array | null }

export class SecureChannel {
  readonly remote: PeerAddress
  /** What the other side proved to hold. */
  readonly peerExchangeKey: Uint8Array
  /** The same on both sides and of this channel alone: what is signed over it is bound to it. */
  readonly handshakeHash: Uint8Array
  /** The highest protocol that both speak. */
  readonly protocol: number
  /** 24 bytes of the other side. */
  readonly greeting: Uint8Array
  readonly #stream: Stream
  readonly #deps: ChannelDeps
  readonly #inbox: Inbox
  readonly #out: Direction
  readonly #in: Direction
  #confirmed: (() => void) | null
  #handlers: ChannelHandlers | null = null
  /** First what is not bulk. */
  readonly #lanes: readonly [Waiting[], Waiting[]] = [[], []]
  #bulkWasLast = false
  #backlog = 0
  #drained: (() => void)[] = []
  readonly #sealing: Place[] = []
  readonly #opening: Place[] = []
  readonly #joining: readonly [Lane, Lane] = [newLane(), newLane()]
  #isFull = false
  #isPumping = false
  #isReading = false
  #isEnding = false
  #hasEnded = false
  #endTimer: Timer | null = null
  #lost: string | null = null
  #over: string | null = null
  #skewMs: number
  #heardMono: number

  /** `confirmed`: called at the first frame that opens; null: this side sends it. */
  constructor(
    stream: Stream,
    inbox: Inbox,
    secrets: Secrets,
    facts: Facts,
    options: { readonly parallelCrypto: boolean; readonly confirmed: (() => void) | null },
    deps: ChannelDeps,
  ) {
    this.#stream = stream
    this.#inbox = inbox
    this.#deps = deps
    this.remote = stream.remote
    this.peerExchangeKey = facts.peer
    this.handshakeHash = secrets.hash
    this.protocol = facts.protocol
    this.greeting = facts.greeting
    const nowMono = deps.clock.monoMs()
    const isGcm = facts.protocol >= GCM_PROTOCOL
    const isThreaded = options.parallelCrypto && !isGcm
    this.#out = new Direction(secrets.send, { isGcm, isThreaded }, nowMono)
    this.#in = new Direction(secrets.receive, { isGcm, isThreaded }, nowMono)
    this.#skewMs = deps.clock.wallMs() - nowMono
    this.#heardMono = nowMono
    this.#confirmed = options.confirmed
    if (options.confirmed === null) this.#control(CONTROL.confirm)
  }

  /** Who gets the messages from here on, the ones that waited first. */
  start(handlers: ChannelHandlers): void {
    this.#handlers = handlers
    if (this.#over !== null) handlers.closed(this.#over)
    else this.#read()
  }

  /** Keeps what comes, at most 1 MiB, until `start` is called again. */
  hold(): void {
    this.#handlers = null
  }

  /**
   * Type 1 to 63, body at most MESSAGE_BYTES_MAX, read before this returns. Bulk and the rest take
   * turns frame by frame. False: closed or the backlog is full; not taken.
   */
  send(type: number, body: Uint8Array, bulk = false): boolean {
    assert(type >= 1 && type <= TYPE_MAX, 'a message has a type of its own')
    assert(body.length <= MESSAGE_BYTES_MAX, 'a message fits into its bound')
    if (this.#over !== null || this.#isEnding) return false
    const bytes = body.length + HEADER_BYTES
    if (this.#backlog + bytes > (bulk ? BULK_BYTES_MAX : BACKLOG_BYTES_MAX)) return false
    const lane = this.#lanes[bulk ? 1 : 0]
    const waiting: Waiting = { type, body, at: 0 }
    lane.push(waiting)
    this.#backlog += bytes
    this.#pump()
    // Usually all of it is out by now.
    if (lane.at(-1) === waiting) {
      waiting.body = body.slice(waiting.at)
      waiting.at = 0
    }
    return true
  }

  get backlogBytes(): number {
    return this.#backlog
  }

  /** When the last frame came that opened. */
  get heardMono(): number {
    return this.#heardMono
  }

  /** Calls once as soon as less than half of the backlog is taken, never within this call. */
  onceDrained(run: () => void): void {
    this.#drained.push(run)
    this.#deps.clock.after(0, () => this.#tellDrained())
  }

  /** Says one octet, ahead of all that waits. */
  notice(code: number): void {
    if (this.#over === null && !this.#isEnding) this.#control(CONTROL.notice, code)
  }

  /** Closes when all that was taken is out, or after 5 s. */
  end(): void {
    if (this.#isEnding || this.#over !== null) return
    this.#isEnding = true
    this.#endTimer = this.#deps.clock.after(END_MS_MAX, () => this.terminate('closed here'))
    this.#pump()
  }

  /** Says one octet and closes: what waits is not sent, what comes is not read. */
  dismiss(code: number): void {
    this.#empty()
    this.#handlers = { message: () => {}, closed: () => {} }
    this.notice(code)
    this.end()
  }

  /** Closes now. Twice is harmless. */
  terminate(why: string): void {
    if (this.#over !== null) return
    this.#over = why
    this.#endTimer?.cancel()
    this.#empty()
    this.#drained = []
    this.#stream.terminate()
    this.#handlers?.closed(why)
  }

  // ---- from the stream ----

  received(bytes: Uint8Array): void {
    if (this.#over !== null) return
    this.#inbox.lend(bytes, () => this.#read())
    if (this.#handlers === null && this.#inbox.length > HELD_BYTES_MAX) {
      this.terminate('too much came before anybody listened')
    }
  }

  drained(): void {
    this.#isFull = false
    this.#pump()
    this.#tellDrained()
  }

  /** The stream is gone. What came before is handed on first, wherever it still is. */
  lost(why: string): void {
    if (this.#opening.length === 0 && this.#handlers !== null) this.terminate(why)
    else this.#lost = why
  }

  // ---- receiving ----

  #read(): void {
    if (this.#isReading) return
    this.#isReading = true
    while (this.#over === null && (this.#handlers !== null || this.#confirmed !== null)) {
      const frame = this.#frame()
      if (frame === null) break
      this.#openFrame(frame)
    }
    this.#isReading = false
    this.#deliver()
  }

  /** The next whole frame, valid until more bytes come; null: not all of it is here. */
  #frame(): Uint8Array | null {
    const head = this.#inbox.peek(HEADER_BYTES)
    if (head === null) return null
    const [high = 0, middle = 0, low = 0] = head
    const length = (high << 16) | (middle << 8) | low
    if (length < TAG_BYTES || length > FRAME_BYTES_MAX - HEADER_BYTES) {
      this.#garbled('a frame of a length that no frame has')
      return null
    }
    return this.#inbox.take(HEADER_BYTES + length)
  }

  #openFrame(frame: Uint8Array): void {
    const type = frame[3] ?? 0
    const threaded = isLong(frame) && type !== 0 ? this.#in.threaded : null
    if (threaded !== null && this.#opening.length < OPENING_MAX) {
      const place: Place = { type, bytes: null }
      this.#opening.push(place)
      // The inbox is used again before the other thread is done.
      const copy = frame.slice()
      threaded
        .open(this.#in.next(), copy.subarray(0, HEADER_BYTES), copy.subarray(HEADER_BYTES))
        .then((text) => {
          if (text === null) return this.#garbled('a frame that does not open')
          place.bytes = text
          this.#heard()
          this.#read()
        })
        .catch((error) => this.terminate(messageOf(error)))
      return
    }
    const aad = frame.subarray(0, HEADER_BYTES)
    const text = this.#in.open(aad, frame.subarray(HEADER_BYTES))
    if (text === null) return this.#garbled('a frame that does not open')
    this.#heard()
    if (type === 0) this.#controlled(text)
    else if (this.#confirmed !== null) this.#garbled('a message before the handshake was confirmed')
    else {
      this.#opening.push({ type, bytes: text })
      this.#deliver()
    }
  }

  #controlled(text: Uint8Array): void {
    const [what, code = 0] = text
    if (this.#confirmed !== null) {
      const confirmed = this.#confirmed
      this.#confirmed = null
      confirmed()
    } else if (what === CONTROL.rekey) this.#in.rekey(this.#deps.clock.monoMs())
    else if (what === CONTROL.notice) this.#handlers?.notice?.(code)
  }

  /** Hands on what is open, in the order in which it came. */
  #deliver(): void {
    for (;;) {
      const [first] = this.#opening
      if (this.#over !== null || this.#handlers === null) return
      if (first === undefined || first.bytes === null) break
      this.#opening.shift()
      this.#join(first.type, first.bytes)
    }
    if (this.#opening.length === 0 && this.#lost !== null) this.terminate(this.#lost)
  }

  #join(flags: number, text: Uint8Array): void {
    const type = flags & TYPE_MAX
    const lane = this.#joining[(flags & BULK) === 0 ? 0 : 1]
    if (lane.parts.length > 0 && lane.type !== type) {
      return this.#garbled('a message inside another one')
    }
    const hasMore = (flags & MORE) !== 0
    if (lane.parts.length === 0 && !hasMore) return this.#handlers?.message(type, text)
    // Only whole frames have more behind them: nobody grows a list of empty ones.
    if (hasMore && text.length !== TEXT_BYTES_MAX)
      return this.#garbled('a short piece of a message')
    lane.type = type
    lane.parts.push(text)
    lane.bytes += text.length
    if (lane.bytes > MESSAGE_BYTES_MAX) return this.#garbled('a message beyond its bound')
    if (hasMore) return
    const body = joinBytes(...lane.parts)
    for (const part of lane.parts) giveBack(part)
    lane.parts = []
    lane.bytes = 0
    this.#handlers?.message(type, body)
  }

  #heard(): void {
    this.#heardMono = this.#deps.clock.monoMs()
  }

  #garbled(why: string): void {
    if (this.#over !== null) return
    this.#deps.observer.emit('link.garbled', { remote: this.remote.host, why })
    this.terminate(why)
  }

  // ---- sending ----

  #pump(): void {
    if (this.#isPumping) return
    this.#isPumping = true
    while (this.#over === null && !this.#isFull && this.#sealing.length < SEALING_MAX) {
      const bulk = this.#nextLane()
      if (bulk === null) break
      if (this.#hasJumped()) {
        this.terminate('the clock jumped: this machine was asleep, or is a copy of a running one')
        break
      }
      if (this.#out.isDue(this.#deps.clock.monoMs())) {
        this.#control(CONTROL.rekey)
        this.#out.rekey(this.#deps.clock.monoMs())
      }
      this.#sendFrame(bulk)
    }
    this.#isPumping = false
    const isOut = this.#backlog === 0 && this.#sealing.length === 0
    if (this.#isEnding && isOut && this.#over === null && !this.#hasEnded) {
      this.#hasEnded = true
      this.#stream.end()
    }
  }

  #empty(): void {
    for (const lane of this.#lanes) lane.length = 0
    this.#backlog = 0
  }

  #nextLane(): boolean | null {
    const [urgent, bulk] = this.#lanes
    if (bulk.length === 0) return urgent.length === 0 ? null : false
    return urgent.length === 0 || !this.#bulkWasLast
  }

  /** Cuts one frame off the first message of a lane. */
  #sendFrame(bulk: boolean): void {
    const lane = this.#lanes[bulk ? 1 : 0]
    const [first] = lane
    assert(first !== undefined, 'the lane has a message')
    this.#bulkWasLast = bulk
    const text = first.body.subarray(first.at, first.at + TEXT_BYTES_MAX)
    first.at += text.length
    this.#backlog -= text.length
    const hasMore = first.at < first.body.length
    if (!hasMore) {
      lane.shift()
      this.#backlog -= HEADER_BYTES
    }
    this.#seal(first.type | (hasMore ? MORE : 0) | (bulk ? BULK : 0), text)
  }

  #control(...octets: readonly number[]): void {
    this.#seal(0, Uint8Array.from(octets))
  }

  #seal(type: number, text: Uint8Array): void {
    const head = new Uint8Array(HEADER_BYTES)
    const length = text.length + TAG_BYTES
    head.set([length >> 16, (length >> 8) & 255, length & 255, type])
    const place: Place = { type, bytes: null }
    this.#sealing.push(place)
    const threaded = isLong(text) ? this.#out.threaded : null
    if (threaded !== null) {
      threaded
        .seal(this.#out.next(), head, text.slice())
        .then((sealed) => {
          place.bytes = joinBytes(head, sealed)
          this.#flush()
          this.#pump()
          this.#tellDrained()
        })
        .catch((error) => this.terminate(messageOf(error)))
      return
    }
    const frame = this.#out.seal(head, text)
    // Behind one that another thread has it waits, and needs memory of its own.
    place.bytes = this.#sealing.length === 1 ? frame : frame.slice()
    this.#flush()
  }

  /** Writes what is sealed, in the order of its nonces. */
  #flush(): void {
    for (;;) {
      const [first] = this.#sealing
      if (this.#over !== null || first === undefined || first.bytes === null) return
      this.#sealing.shift()
      if (!this.#stream.write(first.bytes)) this.#isFull = true
    }
  }

  /** Before every frame: the same nonce must not leave two copies of one machine. */
  #hasJumped(): boolean {
    const { clock } = this.#deps
    const skewMs = clock.wallMs() - clock.monoMs()
    const moved = Math.abs(skewMs - this.#skewMs)
    this.#skewMs = skewMs
    return moved > JUMP_MS
  }

  #tellDrained(): void {
    if (this.#over !== null || this.#backlog >= BACKLOG_BYTES_MAX / 2) return
    const waiting = this.#drained
    this.#drained = []
    for (const run of waiting) run()
  }
}

/** The key and the counter of one direction. */
class Direction {
  readonly #isGcm: boolean
  readonly #isThreaded: boolean
  #key: Uint8Array
  #threaded: ThreadedKey | null = null
  #count = 0
  #freshCount = 0
  #freshMono: number

  constructor(
    key: Uint8Array,
    how: { readonly isGcm: boolean; readonly isThreaded: boolean },
    nowMono: number,
  ) {
    this.#isGcm = how.isGcm
    this.#isThreaded = how.isThreaded
    this.#key = key
    this.#freshMono = nowMono
  }

  /** The next frame, all of it; valid until the next one of any channel. */
  seal(head: Uint8Array, text: Uint8Array): Uint8Array {
    let at = 0
    for (const part of this.#sealed(head, text)) {
      FRAME.set(part, at)
      at += part.length
      giveBack(part)
    }
    return FRAME.subarray(0, at)
  }

  #sealed(head: Uint8Array, text: Uint8Array): readonly Uint8Array[] {
    return this.#isGcm
      ? [head, ...sealGcm(this.#key, this.next(), head, text)]
      : [head, seal(this.#key, this.next(), head, text)]
  }

  /** Null: the other side did not seal it, as its next frame. */
  open(head: Uint8Array, sealed: Uint8Array): Uint8Array | null {
    return (this.#isGcm ? openGcm : open)(this.#key, this.next(), head, sealed)
  }

  /** The same key for other threads; null: they are not to be used. */
  get threaded(): ThreadedKey | null {
    if (this.#isThreaded) this.#threaded ??= new ThreadedKey(this.#key)
    return this.#threaded
  }

  /** The nonce of the next frame. */
  next(): Uint8Array {
    const nonce = (this.#isGcm ? nonceOfGcm : nonceOf)(this.#count)
    this.#count += 1
    return nonce
  }

  isDue(nowMono: number): boolean {
    return this.#count - this.#freshCount >= REKEY_FRAMES || nowMono - this.#freshMono >= REKEY_MS
  }

  /** The counter goes on: Noise section 11.3 leaves it. */
  rekey(nowMono: number): void {
    this.#key = (this.#isGcm ? nextKeyGcm : nextKey)(this.#key)
    this.#threaded = null
    this.#freshCount = this.#count
    this.#freshMono = nowMono
  }
}

function newLane(): Lane {
  return { type: 0, parts: [], bytes: 0 }
}

function isLong(bytes: Uint8Array): boolean {
  return bytes.length >= THREADED_BYTES_MIN
}
