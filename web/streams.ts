/**
 * Pages that stay open: an event stream each, drawn anew after a change and sent when it differs.
 * Bounded in number and rate; a page beyond the bound is told to ask again instead.
 */
import type { Clock, Timer } from '../src/base/clock.ts'
import type { Html } from './html.ts'

/** Streams at once. */
const STREAMS_MAX = 100
/** A page is drawn at most once in this time, and always after the last change. */
const DRAW_MS = 500
/** A silent stream says that it lives: Bun's server ends an answer without a byte for 10 s. */
const BEAT_MS = 8_000
/** How soon a page asks again that found no room. */
const AGAIN_MS = 10_000

/** Gives how to stop. */
export type Watch = (listener: () => void) => () => void

export class Streams {
  readonly #clock: Clock
  readonly #failed: (error: unknown) => void
  readonly #open = new Set<OpenStream>()

  /** `failed` is told of what `draw` threw; that stream ends, and the page comes again. */
  constructor(clock: Clock, failed: (error: unknown) => void) {
    this.#clock = clock
    this.#failed = failed
  }

  get size(): number {
    return this.#open.size
  }

  /** `draw` gives parts for htmx, the whole state each time; null: nobody may read on. */
  open(watch: Watch, draw: () => Html | null): Response {
    if (this.#open.size >= STREAMS_MAX) {
      const drawn = draw()
      return eventStream(drawn === null ? '' : `retry: ${AGAIN_MS}\n${messageOf(drawn)}`)
    }
    const stream = new OpenStream(this.#clock, draw, this.#failed, () => this.#open.delete(stream))
    this.#open.add(stream)
    return eventStream(stream.start(watch))
  }

  close(): void {
    for (const stream of this.#open) stream.end()
  }
}

class OpenStream {
  readonly #clock: Clock
  readonly #draw: () => Html | null
  readonly #failed: (error: unknown) => void
  readonly #ended: () => void
  #pipe: ReadableStreamDefaultController<Uint8Array> | null = null
  #unwatch: () => void = () => {}
  #sent = ''
  #changed = false
  /** While it runs nothing is drawn. */
  #cooling: Timer | null = null
  #beat: Timer | null = null

  constructor(
    clock: Clock,
    draw: () => Html | null,
    failed: (error: unknown) => void,
    ended: () => void,
  ) {
    this.#clock = clock
    this.#draw = draw
    this.#failed = failed
    this.#ended = ended
  }

  start(watch: Watch): ReadableStream<Uint8Array> {
    const body = new ReadableStream<Uint8Array>({
      start: (pipe) => {
        this.#pipe = pipe
      },
      pull: () => {
        if (this.#changed && this.#cooling === null) this.#send()
      },
      cancel: () => this.end(),
    })
    this.#unwatch = watch(() => this.#change())
    this.#send()
    this.#live()
    return body
  }

  /** Twice is harmless. */
  end(): void {
    const pipe = this.#pipe
    if (pipe === null) return
    this.#pipe = null
    this.#unwatch()
    this.#cooling?.cancel()
    this.#beat?.cancel()
    this.#ended()
    try {
      pipe.close()
    } catch {
      // The reader went away first.
    }
  }

  #change(): void {
    this.#changed = true
    if (this.#cooling === null) this.#send()
  }

  /** Words with a time in them change by themselves, so a beat draws too. */
  #live(): void {
    if (this.#pipe === null) return
    this.#beat = this.#clock.after(BEAT_MS, () => {
      if (!this.#send()) this.#write(': \n\n')
      this.#live()
    })
  }

  /** True when something was sent. */
  #send(): boolean {
    // A reader that does not read gets the newest state when it does.
    if (this.#pipe === null || (this.#pipe.desiredSize ?? 0) <= 0) return true
    this.#changed = false
    this.#cooling?.cancel()
    this.#cooling = this.#clock.after(DRAW_MS, () => {
      this.#cooling = null
      if (this.#changed) this.#send()
    })
    const text = this.#drawn()
    if (text === null) this.end()
    if (text === null || text === this.#sent) return false
    this.#sent = text
    this.#write(text)
    return true
  }

  #drawn(): string | null {
    try {
      const drawn = this.#draw()
      return drawn === null ? null : messageOf(drawn)
    } catch (error) {
      this.#failed(error)
      return null
    }
  }

  #write(text: string): void {
    this.#pipe?.enqueue(ENCODER.encode(text))
  }
}

const ENCODER = new TextEncoder()

/** One message. Any line end ends a field of it, also one in a stranger's words. */
function messageOf({ text }: Html): string {
  const lines = text.split(/\r\n|\r|\n/).map((line) => `data: ${line}\n`)
  return `${lines.join('')}\n`
}

function eventStream(body: ReadableStream<Uint8Array> | string): Response {
  return new Response(body, { headers: { 'content-type': 'text/event-stream; charset=utf-8' } })
}
