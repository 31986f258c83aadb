/**
 * Held mail in a cluster whose nodes die: sealed bodies on two nodes, clicks everywhere, owners that
 * are killed, cut off or lost for good. A recipient gets it once, but for "release anyway", a node
 * that was removed, a disk that is lost and an owner that was killed before it told what its queue
 * had: that is counted. And nothing is lost while a node with its body lives.
 */
import { RefusalError, StoreError } from '../../src/base/errors.ts'
import type { MessageId } from '../../src/base/ids.ts'
import { patienceOf } from '../../src/cluster/patience.ts'
import type { Dice } from './dice.ts'
import { type Click, RECIPIENTS } from './held.ts'
import { NO_FAULTS } from './mail-faults.ts'
import { type MailKnobs, MailSimulation } from './mail-simulate.ts'
import { CALM } from './network.ts'
import type { SimNode } from './node.ts'
import type { SimProcess } from './world.ts'

export type HeldEnded = {
  readonly hash: string
  readonly held: number
  readonly released: number
  /** Twice for a reason that the operator was told of. */
  readonly doubled: number
  readonly seen: ReadonlyMap<string, number>
}

const EVERY_MS = 700
/** Of the clicks, by an operator who was told that it may arrive twice. */
const ANYWAY = 0.05
/** Of the releases of what others have too: the node is killed before its rows tell of its queue. */
const KILLED = 0.3
const KILLED_MS_MAX = 30
/** What was said last before a death, and what its beats still said, ms. */
const LAST_WORDS_MS = 2_000
/** At rest everybody clicks in turn; a claim waits for a silent holder no longer than this. */
const ROUND_MS = 60_000
const ROUNDS = 12

type Known = {
  readonly id: MessageId
  readonly by: SimNode
  isAnyway: boolean
  /** Copies that arrived again for no reason that an operator was told of before. */
  doubled: number
}

/** A copy left for the queue of a node, in one of its runs. */
type Left = { readonly node: SimNode; readonly process: SimProcess | null; readonly atMs: number }

/** Runs one seed. @throws ViolationError, whose message begins with SIM_SEED */
export function simulateHeld(
  seed: number,
  tune = (knobs: MailKnobs): MailKnobs => knobs,
): HeldEnded {
  const released = new Map<string, Left[]>()
  const sim = new MailSimulation(seed, {
    tune: (knobs) => tune(heldKnobs(knobs)),
    onReleased: (node, copy) => {
      const { nowMs: atMs } = sim.world
      const left = { node, process: node.run?.process ?? null, atMs }
      released.set(copy, [...(released.get(copy) ?? []), left])
      work.released(copy)
    },
  })
  const work = new HeldWork(sim, sim.world.dice.split('held'), released)
  try {
    work.begin()
    sim.live()
    work.end()
    sim.rest()
    return work.rest()
  } finally {
    sim.close()
  }
}

/** The mail of senders is not what this is about. A disk that goes back is a promise of its own. */
function heldKnobs(knobs: MailKnobs): MailKnobs {
  const { faults } = knobs
  return {
    ...knobs,
    // A silence of some seconds comes before the first refusal, whatever the scale: with shorter
    // times nobody would be known to have died with nothing untold.
    timeScale: 1 + knobs.timeScale / 4,
    weather: { ...CALM, latencyMs: knobs.weather.latencyMs },
    senders: { ...knobs.senders, everyMs: 20_000 },
    faults: {
      ...NO_FAULTS,
      everyMs: faults.everyMs * 2,
      kills: faults.kills,
      powerCuts: faults.powerCuts,
      cuts: faults.cuts,
      loss: faults.loss === 'none' ? 'none' : 'destroyed',
    },
  }
}

class HeldWork {
  readonly #sim: MailSimulation
  readonly #dice: Dice
  readonly #released: ReadonlyMap<string, readonly Left[]>
  readonly #known = new Map<MessageId, Known>()
  #isOver = false
  #doubled = 0

  constructor(sim: MailSimulation, dice: Dice, released: ReadonlyMap<string, readonly Left[]>) {
    this.#sim = sim
    this.#dice = dice
    this.#released = released
  }

  begin(): void {
    this.#sim.world.after(this.#dice.exponential(EVERY_MS), () => {
      if (this.#isOver) return
      this.#act()
      this.begin()
    })
  }

  end(): void {
    this.#isOver = true
  }

  /** Twice is told to the operator before, or is in doubt by a death, or it is a fault. */
  released(copy: string): void {
    const left = this.#released.get(copy) ?? []
    const [id = ''] = copy.split(' ')
    const { world } = this.#sim
    const last = left.at(-1)?.node
    world.tell(() => `${copy} leaves from ${last?.name}`)
    world.sometimes('held mail released')
    if (last !== undefined) this.#perhapsKill(last, id as MessageId)
    if (left.length < 2) return
    this.#doubled += 1
    const known = this.#known.get(id as MessageId)
    if (known === undefined || known.isAnyway) return
    if (left.some(({ node }) => node.isRemoved || node.isDestroyed)) return
    const names = left.map(({ node }) => node.name).join(', ')
    if (left.slice(0, -1).every((before) => this.#isUntold(before))) {
      known.doubled += 1
      world.sometimes('held mail released twice by a death')
    } else world.violate(`held ${copy} is released twice, by ${names}`)
  }

  /** It was killed before everybody knew that its queue had the copy. */
  #isUntold({ process, atMs }: Left): boolean {
    const { takeoverMs } = patienceOf(this.#sim.knobs.timeScale)
    const endedMs = process?.endedMs ?? null
    return endedMs !== null && endedMs - atMs <= takeoverMs + LAST_WORDS_MS
  }

  /** Before it wrote down that its queue has a mail, or before others have read that. */
  #perhapsKill(node: SimNode, id: MessageId): void {
    const { world, knobs, cluster } = this.#sim
    const { process } = node.run ?? {}
    const others = cluster.core.filter((one) => one !== node)
    const isElsewhere = others.some(({ bodies }) => bodies.kept.has(id))
    const isAlone = others.some(({ isUp }) => !isUp)
    if (this.#isOver || !isElsewhere || isAlone || !this.#dice.chance(KILLED)) return
    world.after(this.#dice.between(0, KILLED_MS_MAX), () => {
      if (process === undefined || node.run?.process !== process || this.#isOver) return
      world.sometimes('owner killed behind its queue')
      world.act(() => node.crash(false))
      const { adoptConfirmedMs } = patienceOf(knobs.timeScale)
      // Mostly so long that another one takes its mail over.
      const part = this.#dice.chance(0.3)
        ? this.#dice.between(0.01, 1)
        : this.#dice.between(1.1, 2.5)
      const ms = part * adoptConfirmedMs
      world.after(ms, () => {
        if (!this.#isOver) node.start()
      })
    })
  }

  /** All that some living node has the body of can be released from everywhere, and is. */
  rest(): HeldEnded {
    const { world, cluster, ledger } = this.#sim
    const kept = [...this.#known.keys()].filter((id) =>
      cluster.core.some(({ bodies }) => bodies.kept.has(id)),
    )
    const open = (): readonly string[] => kept.flatMap((id) => this.#open(id))
    let isDone = false
    // A click that waits for an owner is a question again when that one is removed.
    for (let round = 0; round < ROUNDS && !isDone; round += 1) {
      const node = cluster.core[round % cluster.core.length]
      for (const id of kept) {
        if (node !== undefined && this.#open(id).length > 0) this.#click(node, id, PLAIN)
      }
      isDone = world.runTill(() => open().length === 0, ROUND_MS, 500)
    }
    world.act(() => {
      if (!isDone) world.violate(`held mail is lost or stuck: ${open().slice(0, 3).join('; ')}`)
      for (const { id, doubled } of this.#known.values()) {
        const counted = ledger.heldDoubts.get(id) ?? 0
        if (counted >= doubled) continue
        world.violate(`held ${id} arrived ${doubled} times again, and ${counted} were counted`)
      }
    })
    const { hash, seen } = world
    const counts = { held: this.#known.size, released: this.#released.size }
    return { hash, seen, ...counts, doubled: this.#doubled }
  }

  /** Its copies that are neither deleted nor gone out, as the nodes see them. */
  #open(id: MessageId): readonly string[] {
    const { core } = this.#sim.cluster
    return RECIPIENTS.flatMap((_, place) => {
      if (this.#released.has(`${id} ${place}`)) return []
      const rows = core.map(({ run }) => run?.held.quarantine.one(id) ?? null)
      const claims = rows.map((row) => row?.copies.find((copy) => copy.place === place)?.claim)
      if (claims.every((claim) => claim?.kind === 'delete')) return []
      const owners = new Set(rows.map((row) => row?.row.owner.name))
      return [`${id} ${place} of ${[...owners].join(', ')}: ${claims.map((one) => one?.kind)}`]
    })
  }

  #act(): void {
    const { doors } = this.#sim
    if (doors.length === 0) return
    const node = this.#dice.pick(doors)
    if (this.#known.size === 0 || this.#dice.chance(0.3)) return this.#hold(node)
    const id = this.#dice.pick([...this.#known.keys()])
    const kind = this.#dice.chance(0.7) ? 'release' : 'delete'
    const recipient = this.#dice.pick([null, ...RECIPIENTS])
    this.#click(node, id, { kind, recipient, anyway: this.#dice.chance(ANYWAY) })
  }

  #hold(node: SimNode): void {
    const { world } = this.#sim
    const { run } = node
    if (run === null) return
    const id = world.act(() => run.held.hold())
    this.#known.set(id, { id, by: node, isAnyway: false, doubled: 0 })
    world.tell(() => `${node.name} holds ${id}`)
  }

  #click(node: SimNode, id: MessageId, click: Click): void {
    const { world } = this.#sim
    const { run } = node
    const known = this.#known.get(id)
    if (run === null || known === undefined) return
    known.isAnyway ||= click.kind === 'release' && click.anyway
    world.tell(() => `${node.name} clicks ${click.kind} of ${id}, anyway: ${click.anyway}`)
    world.act(() => {
      run.held.click(id, click).catch((error: unknown) => {
        if (error instanceof RefusalError) world.sometimes(`click refused: ${error.code}`)
        else if (!(error instanceof StoreError)) {
          world.violate(`a click of ${node.name} failed: ${String(error)}`)
        }
      })
    })
  }
}

const PLAIN: Click = { kind: 'release', recipient: null, anyway: false }
