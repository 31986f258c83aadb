/** The parts that care for held mail of all nodes, put together, and what they answer to peers. */
import type { Clock } from '../base/clock.ts'
import type { Observer } from '../base/observe.ts'
import type { Calls } from '../cluster/contract.ts'
import type { HeldNodes } from '../mail/quarantine/nodes.ts'
import { BODY, HAVE, HeldShare, KEEP } from '../mail/quarantine/share.ts'
import { HeldTakeover, type HeldTakeoverDeps, TAKE } from '../mail/quarantine/takeover.ts'
import type { Bodies } from '../store/bodies.ts'
import type { Quarantine } from '../store/quarantine.ts'
import { DECIDE, HeldDecisions, type HeldDecisionsDeps } from './held-decisions.ts'

export type HeldHoldersDeps = {
  readonly clock: Clock
  readonly observer: Observer
  readonly quarantine: Quarantine
  readonly bodies: Pick<Bodies, 'write' | 'read' | 'meta' | 'has' | 'remove' | 'list'>
  readonly nodes: HeldNodes
  readonly patience: HeldTakeoverDeps['patience']
}

export class HeldHolders {
  readonly share: HeldShare
  readonly takeover: HeldTakeover
  readonly #deps: HeldHoldersDeps
  #decisions: HeldDecisions | null = null
  #note: HeldTakeoverDeps['note'] = () => {}

  constructor(deps: HeldHoldersDeps) {
    this.#deps = deps
    this.share = new HeldShare({ ...deps, spoke: (id, from) => this.takeover.spoke(id, from) })
    this.takeover = new HeldTakeover({
      ...deps,
      share: this.share,
      note: (...line) => this.#note(...line),
      taken: () => this.#decisions?.taken(),
    })
  }

  /** Once, when there is a queue for what is released. */
  decide(deps: Pick<HeldDecisionsDeps, 'trace' | 'operators' | 'mail'>): HeldDecisions {
    const { clock } = this.#deps
    this.#note = (id, recipient, detail) =>
      deps.trace.note(id, { atMs: clock.wallMs(), recipient, what: 'adopted', detail })
    this.#decisions = new HeldDecisions({ ...deps, ...this, ...this.#deps })
    return this.#decisions
  }

  /** After the rebuild of the quarantine, and before copies of peers are looked through. */
  start(calls: Pick<Calls, 'answer'>): void {
    const { share, takeover } = this
    const json =
      (act: (value: unknown, from: Parameters<HeldShare['keep']>[1]) => Promise<unknown>) =>
      async (value: unknown, from: Parameters<HeldShare['keep']>[1]) =>
        ({ kind: 'json', value: await act(value, from) }) as const
    calls.answer(
      KEEP,
      json((value, from) => share.keep(value, from)),
    )
    calls.answer(
      HAVE,
      json((value, from) => share.have(value, from)),
    )
    calls.answer(
      TAKE,
      json((value, from) => takeover.answerTake(value, from)),
    )
    if (this.#decisions !== null) {
      calls.answer(DECIDE, this.#decisions.answerDecide)
      calls.answer(BODY, this.#decisions.answerBody)
    }
    share.start()
    takeover.start()
  }

  /** Resolves when what runs has ended. */
  async stop(): Promise<void> {
    this.takeover.stop()
    await this.share.stop()
  }
}
