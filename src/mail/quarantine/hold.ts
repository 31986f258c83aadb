/**
 * Puts the held recipients of a message into the quarantine: sealed file, index row, HOLD mark. Of a
 * copy for another node the file alone: its owner has the row.
 */
import type { Clock } from '../../base/clock.ts'
import { messageOf } from '../../base/errors.ts'
import type { Observer } from '../../base/observe.ts'
import type { LiveConfig } from '../../config/live.ts'
import type { Bodies } from '../../store/bodies.ts'
import type { HeldMail } from '../../store/held-mail.ts'
import type { Holding } from '../../store/held-writer.ts'
import type { Quarantine } from '../../store/quarantine.ts'
import type { Queue } from '../../store/queue.ts'
import type { Message } from '../../store/queued.ts'

const DAY_MS = 86_400_000
/** Sealed files written at a time: each needs two syncs, and memory for a frame. */
const WRITES_MAX = 4
const RETRY_MS = 5_000

export type HolderDeps = {
  readonly bodies: Pick<Bodies, 'write'>
  readonly quarantine: Quarantine
  readonly queue: Queue
  /** The sealed file of a copy for another node is durable. */
  readonly sealed: (mail: HeldMail) => void
  readonly live: LiveConfig
  readonly clock: Clock
  readonly observer: Observer
}

export class Holder {
  readonly #deps: HolderDeps
  readonly #waiting: Message[] = []
  #running = 0
  #stopped = false
  #onIdle: (() => void) | null = null

  constructor(deps: HolderDeps) {
    this.#deps = deps
  }

  /** Takes up what a crash left between COMMIT and HOLD, and follows copies: once, at start. */
  resume(): void {
    const { queue } = this.#deps
    for (const message of queue.messages()) this.hold(message)
    queue.onKept((copy) => this.hold(copy))
  }

  /**
   * Moves the held copies from the spool to the quarantine. The mail is safe already: this
   * returns at once, and a disk that refuses is asked again.
   */
  hold(message: Message): void {
    if (message.heldMoved || message.recipients.every(({ state }) => state !== 'held')) return
    this.#waiting.push(message)
    this.#next()
  }

  /** Starts nothing more; resolves when the running writes have ended. */
  async stop(): Promise<void> {
    this.#stopped = true
    if (this.#running === 0) return
    await new Promise<void>((resolve) => {
      this.#onIdle = resolve
    })
  }

  #next(): void {
    while (!this.#stopped && this.#running < WRITES_MAX) {
      const message = this.#waiting.shift()
      if (message === undefined) return
      this.#running += 1
      void this.#move(message).finally(() => {
        this.#running -= 1
        if (this.#running === 0) this.#onIdle?.()
        this.#next()
      })
    }
  }

  /** Never rejects. */
  async #move(message: Message): Promise<void> {
    const { bodies, quarantine, queue, clock, observer } = this.#deps
    message.pins += 1
    try {
      const mail = this.#describe(message)
      const { sizeBytes } = message.commit
      // The file is durable before the mark that lets the spool forget (design: mail.md, Queue).
      await bodies.write(mail, { kind: 'pieces', sizeBytes, pieces: queue.read(message.body()) })
      // It may have changed its owner meanwhile.
      if (message.owner !== queue.node) this.#deps.sealed(mail)
      else quarantine.add({ ...mail, owner: queue.node, term: message.term }, holdingOf(message))
      queue.mark('hold', message, mail.places)
      message.heldMoved = true
      queue.settle(message)
    } catch (error) {
      observer.emit('store.failed', { message: message.id, cause: messageOf(error) })
      clock.after(RETRY_MS, () => this.hold(message))
    } finally {
      message.pins -= 1
    }
  }

  #describe(message: Message): HeldMail {
    const { envelope, commit } = message
    const places = heldPlaces(message)
    const verdict = commit.verdicts[places[0] ?? 0]
    const heldMs = envelope.receivedMs
    return {
      row: {
        id: message.id,
        sender: envelope.sender,
        recipients: places.map((place) => envelope.recipients[place]?.address ?? ''),
        subject: commit.facts.subject,
        from: commit.facts.from,
        clientIp: envelope.clientIp,
        sizeBytes: commit.sizeBytes,
        score: verdict?.score ?? 0,
        rules: verdict?.rules ?? [],
        findings: commit.judgement?.findings ?? [],
        unknowns: commit.judgement?.unknowns ?? [],
        heldMs,
        expiresMs: heldMs + this.#deps.live.current.settings['quarantine.keep'] * DAY_MS,
      },
      envelope,
      places,
      prepend: commit.prepend,
      ...(commit.cuts === undefined ? {} : { cuts: commit.cuts }),
      owner: message.owner,
      term: message.term,
    }
  }
}

/** Who has a copy in its spool has the body: it seals it, as this node does. */
function holdingOf({ holders }: Message): Holding {
  const of = (wanted: 'kept' | 'sent') =>
    [...holders].flatMap(([node, state]) => (state === wanted ? [node] : []))
  return { holders: of('kept'), perhaps: of('sent') }
}

function heldPlaces(message: Message): readonly number[] {
  return [...message.recipients.keys()].filter(
    (place) => message.recipients[place]?.state === 'held',
  )
}
