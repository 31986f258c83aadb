/**
 * Questions to one node over its link: JSON both ways, and for an answer with bytes behind it a
 * stream of pieces. The asker gives credit for what it has taken, so neither side ever holds more
 * than a window of a stream; either side may give up at any time.
 */
import type { Clock, Timer } from '../base/clock.ts'
import { assert, messageOf, RefusalError } from '../base/errors.ts'
import type { NodeId } from '../base/ids.ts'
import type { Observer } from '../base/observe.ts'
import {
  type CallAnswer,
  type Calls,
  type Link,
  type Links,
  MESSAGE,
  MESSAGE_BYTES_MAX,
} from './contract.ts'
import {
  type Answer,
  type Call,
  encodeAnswer,
  encodeCall,
  encodeFlow,
  encodePiece,
  type Flow,
  type Piece,
  readAnswer,
  readCall,
  readFlow,
  readPiece,
} from './wire.ts'

/** An answer that takes longer is none. */
const TIMEOUT_MS = 5_000
/** Calls that are open on one link, for each direction. */
export const OPEN_MAX = 64
/** Bytes of a stream that may be under way or wait to be taken. */
export const WINDOW_BYTES = 256 * 1024
const PIECE_BYTES_MIN = 32 * 1024
const PIECE_BYTES_MAX = 64 * 1024
/** Somebody asked for a stream and takes nothing of it. */
const IDLE_MS = 60_000

type Stream = { readonly value: unknown; readonly bytes: AsyncIterable<Uint8Array> }

/** A question of ours. */
type Asked = {
  readonly resolve: (stream: Stream) => void
  readonly reject: (error: RefusalError) => void
  readonly timeoutMs: number
  timer: Timer
  /** Null until the answer came, and when it has no bytes behind it. */
  incoming: Incoming | null
}

/** A question of the peer's. */
type Served = {
  cancelled: boolean
  credit: number
  /** Wakes whoever waits for credit or for room on the link. */
  wake: (() => void) | null
}

type Line = {
  readonly link: Link
  readonly asked: Map<number, Asked>
  readonly served: Map<number, Served>
  lastId: number
}

export class LinkCalls implements Calls {
  readonly #links: Links
  readonly #clock: Clock
  readonly #observer: Observer
  readonly #nameOf: (node: NodeId) => string
  readonly #lines = new Map<Link, Line>()
  readonly #topics = new Map<string, (value: unknown, from: NodeId) => Promise<CallAnswer>>()

  /** `nameOf`: what people call a node. */
  constructor(
    links: Links,
    deps: { readonly clock: Clock; readonly observer: Observer },
    nameOf: (node: NodeId) => string = (node) => node,
  ) {
    this.#links = links
    this.#clock = deps.clock
    this.#observer = deps.observer
    this.#nameOf = nameOf
    for (const link of links.all()) this.#open(link)
    links.onOpen((link) => this.#open(link))
    links.onClose((link, why) => this.#close(link, why))
    this.#onMessage(MESSAGE.call, readCall, (line, call) => void this.#serve(line, call))
    this.#onMessage(MESSAGE.answer, readAnswer, (line, answer) => this.#answered(line, answer))
    this.#onMessage(MESSAGE.piece, readPiece, (line, piece) => this.#took(line, piece))
    this.#onMessage(MESSAGE.flow, readFlow, (line, flow) => this.#flow(line, flow))
  }

  answer(topic: string, act: (value: unknown, from: NodeId) => Promise<CallAnswer>): void {
    assert(!this.#topics.has(topic), `one answer to ${topic}`)
    this.#topics.set(topic, act)
  }

  async ask(node: NodeId, topic: string, value: unknown, timeoutMs = TIMEOUT_MS): Promise<unknown> {
    const { value: answer, bytes } = await this.fetch(node, topic, value, timeoutMs)
    // Bytes that nobody asked for are not waited for.
    await bytes[Symbol.asyncIterator]().return?.()
    return answer
  }

  /** `timeoutMs` holds for the answer, and again for each piece that is waited for. */
  fetch(node: NodeId, topic: string, value: unknown, timeoutMs = TIMEOUT_MS): Promise<Stream> {
    const link = this.#links.get(node)
    const line = link === null ? undefined : this.#lines.get(link)
    if (line === undefined) {
      return Promise.reject(this.#unavailable(node, this.#links.trouble(node) ?? 'no link is up'))
    }
    if (line.asked.size >= OPEN_MAX) {
      return Promise.reject(this.#unavailable(node, `${OPEN_MAX} questions to it are open`))
    }
    line.lastId += 1
    const id = line.lastId
    const body = encodeCall({ id, topic, value: value ?? null })
    assert(body.length <= MESSAGE_BYTES_MAX, `a question fits a message: ${topic}`)
    return new Promise((resolve, reject) => {
      if (!line.link.send(MESSAGE.call, body)) {
        reject(this.#unavailable(node, 'the link to it is full'))
        return
      }
      const timer = this.#clock.after(timeoutMs, () => this.#expire(line, id))
      line.asked.set(id, { resolve, reject, timeoutMs, timer, incoming: null })
    })
  }

  // ---- links ----

  #onMessage<Message>(
    type: number,
    read: (body: Uint8Array) => Message | null,
    act: (line: Line, message: Message) => void,
  ): void {
    this.#links.onMessage(type, (link, body) => {
      const line = this.#lines.get(link)
      if (line === undefined) return
      const message = read(body)
      if (message === null) link.close('it sent a call that cannot be read')
      else act(line, message)
    })
  }

  #open(link: Link): void {
    this.#lines.set(link, { link, asked: new Map(), served: new Map(), lastId: 0 })
  }

  #close(link: Link, why: string): void {
    const line = this.#lines.get(link)
    if (line === undefined) return
    this.#lines.delete(link)
    for (const id of [...line.asked.keys()]) {
      this.#drop(line, id, this.#unavailable(link.peer, `the link to it was lost (${why})`))
    }
    for (const served of line.served.values()) cancel(served)
  }

  #unavailable(node: NodeId, why: string): RefusalError {
    return new RefusalError(
      'unavailable',
      null,
      `Node ${this.#nameOf(node)} did not answer: ${why}.`,
      'Try again; the cluster page shows which nodes are in reach.',
    )
  }

  // ---- our questions ----

  /** Nothing came in time, though we waited for it. */
  #expire(line: Line, id: number): void {
    const asked = line.asked.get(id)
    if (asked === undefined) return
    line.link.send(MESSAGE.flow, encodeFlow({ id, credit: null }))
    const seconds = asked.timeoutMs / 1_000
    this.#drop(line, id, this.#unavailable(line.link.peer, `nothing came within ${seconds} s`))
  }

  #drop(line: Line, id: number, error: RefusalError | null): void {
    const asked = line.asked.get(id)
    if (asked === undefined) return
    line.asked.delete(id)
    asked.timer.cancel()
    if (asked.incoming !== null) asked.incoming.end(error)
    else if (error !== null) asked.reject(error)
  }

  #answered(line: Line, answer: Answer): void {
    const asked = line.asked.get(answer.id)
    // It was given up meanwhile.
    if (asked === undefined || asked.incoming !== null) return
    if (answer.kind === 'refusal') {
      const { code, field, message, advice } = answer
      this.#drop(line, answer.id, new RefusalError(code, field, message, advice))
      return
    }
    if (answer.kind === 'json') {
      asked.resolve({ value: answer.value, bytes: NO_BYTES })
      this.#drop(line, answer.id, null)
      return
    }
    asked.timer.cancel()
    asked.incoming = this.#incoming(line, answer.id, asked)
    asked.resolve({ value: answer.value, bytes: asked.incoming })
  }

  #incoming(line: Line, id: number, asked: Asked): Incoming {
    let taken = 0
    return new Incoming({
      waits: () => {
        asked.timer.cancel()
        asked.timer = this.#clock.after(asked.timeoutMs, () => this.#expire(line, id))
      },
      took: (bytes) => {
        taken += bytes
        if (taken < PIECE_BYTES_MAX || !line.asked.has(id)) return
        if (line.link.send(MESSAGE.flow, encodeFlow({ id, credit: taken }))) taken = 0
      },
      left: () => {
        if (!line.asked.has(id)) return
        line.link.send(MESSAGE.flow, encodeFlow({ id, credit: null }))
        this.#drop(line, id, null)
      },
    })
  }

  #took(line: Line, { id, end, bytes }: Piece): void {
    const asked = line.asked.get(id)
    const incoming = asked?.incoming ?? null
    if (asked === undefined || incoming === null) return
    asked.timer.cancel()
    if (!incoming.put(bytes)) {
      line.link.close('it sent more of a stream than it was asked for')
      return
    }
    if (end === 'whole') this.#drop(line, id, null)
    if (end === 'broken') {
      this.#drop(line, id, this.#unavailable(line.link.peer, 'it broke off in the middle'))
    }
  }

  // ---- questions of peers ----

  #flow(line: Line, { id, credit }: Flow): void {
    const served = line.served.get(id)
    if (served === undefined) return
    if (credit === null) cancel(served)
    else {
      served.credit = Math.min(WINDOW_BYTES, served.credit + credit)
      served.wake?.()
    }
  }

  /** Never rejects. */
  async #serve(line: Line, { id, topic, value }: Call): Promise<void> {
    const { peer } = line.link
    if (line.served.size >= OPEN_MAX || line.served.has(id)) {
      const why = `${OPEN_MAX} questions of this node are open there`
      this.#reply(line, refusalAnswer(id, this.#refusal(why)))
      return
    }
    const served: Served = { cancelled: false, credit: WINDOW_BYTES, wake: null }
    line.served.set(id, served)
    try {
      const act = this.#topics.get(topic)
      if (act === undefined) throw this.#refusal(`it does not know the question ${topic}`)
      const answer = await act(value, peer)
      if (answer.kind === 'json') await this.#give(line, served, id, answer)
      else await this.#stream(line, served, id, answer)
    } catch (error) {
      const isRefusal = error instanceof RefusalError
      if (!isRefusal) this.#observer.emit('call.failed', { peer, topic, detail: messageOf(error) })
      const refusal = isRefusal ? error : this.#refusal('an error of its own; its log has more')
      this.#reply(line, refusalAnswer(id, refusal))
    } finally {
      line.served.delete(id)
    }
  }

  #refusal(why: string): RefusalError {
    const advice = 'Try again; if it stays so, look at the log of that node.'
    return new RefusalError('unavailable', null, `The other node cannot answer: ${why}.`, advice)
  }

  /** For what needs no waiting: a refusal that the link does not take is a question timed out. */
  #reply(line: Line, answer: Answer): void {
    line.link.send(MESSAGE.answer, encodeAnswer(answer))
  }

  async #give(line: Line, served: Served, id: number, { kind, value }: CallAnswer): Promise<void> {
    const body = encodeAnswer({ id, kind, value: value ?? null })
    assert(body.length <= MESSAGE_BYTES_MAX, 'a longer answer is streamed')
    while (!served.cancelled && !line.link.send(MESSAGE.answer, body))
      await this.#room(line, served)
  }

  async #stream(
    line: Line,
    served: Served,
    id: number,
    answer: Extract<CallAnswer, { kind: 'stream' }>,
  ): Promise<void> {
    await this.#give(line, served, id, answer)
    let end: Piece['end'] = 'broken'
    try {
      // Leaving the loop ends the source.
      for await (const bytes of inPieces(answer.bytes)) {
        await this.#sendPiece(line, served, { id, end: 'open', bytes })
        if (served.cancelled) return
      }
      end = 'whole'
    } catch (error) {
      const { peer } = line.link
      this.#observer.emit('call.failed', { peer, topic: 'stream', detail: messageOf(error) })
    }
    await this.#sendPiece(line, served, { id, end, bytes: new Uint8Array(0) })
  }

  async #sendPiece(line: Line, served: Served, piece: Piece): Promise<void> {
    const body = encodePiece(piece)
    while (!served.cancelled && served.credit < piece.bytes.length) await this.#wait(served)
    while (!served.cancelled && !line.link.send(MESSAGE.piece, body, true)) {
      await this.#room(line, served)
    }
    served.credit -= piece.bytes.length
  }

  #room(line: Line, served: Served): Promise<void> {
    line.link.onceDrained(() => served.wake?.())
    return this.#wait(served)
  }

  /** Until somebody wakes it; a minute without a sign is a cancel. */
  #wait(served: Served): Promise<void> {
    return new Promise((resolve) => {
      const timer = this.#clock.after(IDLE_MS, () => cancel(served))
      served.wake = () => {
        served.wake = null
        timer.cancel()
        resolve()
      }
    })
  }
}

function cancel(served: Served): void {
  served.cancelled = true
  served.wake?.()
}

function refusalAnswer(id: number, { code, field, message, advice }: RefusalError): Answer {
  return { id, kind: 'refusal', code, field, message, advice }
}

/** Small ones are joined and large ones cut, into what a link likes to carry. */
async function* inPieces(source: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> {
  let joined: Uint8Array[] = []
  let size = 0
  for await (const bytes of source) {
    for (let from = 0; from < bytes.length; from += PIECE_BYTES_MAX - PIECE_BYTES_MIN) {
      const part = bytes.subarray(from, from + PIECE_BYTES_MAX - PIECE_BYTES_MIN)
      joined.push(part)
      size += part.length
      if (size < PIECE_BYTES_MIN) continue
      yield concat(joined, size)
      joined = []
      size = 0
    }
  }
  if (size > 0) yield concat(joined, size)
}

function concat(parts: readonly Uint8Array[], size: number): Uint8Array {
  const whole = new Uint8Array(size)
  let at = 0
  for (const part of parts) {
    whole.set(part, at)
    at += part.length
  }
  return whole
}

const NO_BYTES: AsyncIterable<Uint8Array> = {
  async *[Symbol.asyncIterator]() {},
}

/** What a reader does that the other end must know of. */
type Reader = {
  /** It waits for a piece. */
  waits(): void
  took(bytes: number): void
  /** It wants no more. */
  left(): void
}

/** The pieces of one stream in the order in which they are taken; once. */
class Incoming implements AsyncIterable<Uint8Array>, AsyncIterator<Uint8Array, undefined> {
  readonly #on: Reader
  #pieces: Uint8Array[] = []
  #held = 0
  #ended = false
  #error: RefusalError | null = null
  #waiting: (() => void) | null = null

  constructor(on: Reader) {
    this.#on = on
  }

  /** False: more than the window. */
  put(bytes: Uint8Array): boolean {
    this.#held += bytes.length
    if (this.#held > WINDOW_BYTES) return false
    if (bytes.length > 0) this.#pieces.push(bytes)
    this.#waiting?.()
    return true
  }

  end(error: RefusalError | null): void {
    this.#ended = true
    this.#error = error
    this.#waiting?.()
  }

  [Symbol.asyncIterator](): AsyncIterator<Uint8Array, undefined> {
    return this
  }

  async next(): Promise<IteratorResult<Uint8Array, undefined>> {
    for (;;) {
      const piece = this.#pieces.shift()
      if (piece !== undefined) {
        this.#held -= piece.length
        this.#on.took(piece.length)
        return { done: false, value: piece }
      }
      if (this.#error !== null) throw this.#error
      if (this.#ended) return { done: true, value: undefined }
      assert(this.#waiting === null, 'one reader of a stream')
      this.#on.waits()
      await new Promise<void>((resolve) => {
        this.#waiting = resolve
      })
      this.#waiting = null
    }
  }

  async return(): Promise<IteratorResult<Uint8Array, undefined>> {
    this.#pieces = []
    this.#ended = true
    this.#on.left()
    return { done: true, value: undefined }
  }
}
