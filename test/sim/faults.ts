/**
 * What goes wrong in a simulated cluster, and when: cuts of the network, clogged wires, crashes,
 * stalls, disks that refuse or go back, clones, clocks, and machines that never come back.
 */
import type { Dice } from './dice.ts'
import type { Cut } from './network.ts'
import { type SimNode, tolerate } from './node.ts'
import type { Simulation } from './simulate.ts'

/** Weights, 0..1; 0: not in this seed. */
export type FaultRates = {
  /** Mean time between two faults. */
  readonly everyMs: number
  readonly cuts: number
  readonly clogs: number
  readonly crashes: number
  readonly stalls: number
  readonly disks: number
  readonly rollbacks: number
  readonly clones: number
  readonly lapses: number
  readonly losses: number
  /** Clocks are wrong by up to 40 s, drift, and jump. */
  readonly clocks: boolean
}

/** After so long a tombstone is old enough to go. */
const LAPSE_MS = 25 * 3_600_000
const COLLECTED_MAX = 500
const STALL_MS_MAX = 8_000
const DOWN_MS_MAX = 15_000
const CUT_MS_MAX = 25_000

export class FaultMaker {
  readonly #sim: Simulation
  readonly #dice: Dice
  /** The furthest that any clock was ahead. */
  highestMs = 0
  #isOver = false
  #hasCloned = false
  #count = 0

  constructor(sim: Simulation) {
    this.#sim = sim
    this.#dice = sim.world.dice.split('faults')
  }

  begin(): void {
    this.#noteClocks()
    this.#next()
  }

  end(): void {
    this.#isOver = true
  }

  #next(): void {
    const { world, knobs } = this.#sim
    world.after(this.#dice.exponential(knobs.faults.everyMs), () => {
      if (this.#isOver) return
      this.#strike()
      this.#next()
    })
  }

  #strike(): void {
    const { cuts, clogs, crashes, stalls, disks, rollbacks, clones, lapses, losses, clocks } =
      this.#sim.knobs.faults
    const menu: readonly (readonly [weight: number, act: () => void])[] = [
      [cuts, () => this.#cut()],
      [clogs, () => this.#swizzle()],
      [crashes, () => this.#crash(false)],
      [clogs / 2, () => this.#dropLink()],
      [stalls, () => this.#stall()],
      [disks, () => this.#refuse()],
      [rollbacks, () => this.#crash(true)],
      [clones, () => this.#clone()],
      [lapses, () => this.#lapse()],
      [losses, () => this.#lose()],
      [clocks ? 0.3 : 0, () => this.#jump()],
    ]
    let left = this.#dice.between(
      0,
      menu.reduce((sum, [weight]) => sum + weight, 0),
    )
    for (const [weight, act] of menu) {
      left -= weight
      if (left < 0) return act()
    }
  }

  #victim(): SimNode | null {
    const { up } = this.#sim
    return up.length === 0 ? null : this.#dice.pick(up)
  }

  #cut(): void {
    const { world, fabric, nodes } = this.#sim
    const dice = this.#dice
    const hosts = dice.shuffle(nodes.map(({ host }) => host))
    const [one = '', two = '', three = ''] = hosts
    const side = new Set(hosts.slice(0, 1 + dice.below(Math.max(1, hosts.length - 1))))
    const shapes: Readonly<Record<string, Cut>> = {
      split: (from, to) => side.has(from) !== side.has(to),
      isolated: (from, to) => from === one || to === one,
      'one way': (from, to) => from === one && to === two,
      bridge: (from, to) => pairIs(from, to, one, three === '' ? two : three),
      'no datagrams': (from, to, plane) => plane === 'udp' && (from === one || to === one),
    }
    const shape = dice.pick(Object.keys(shapes))
    this.#count += 1
    const name = `cut ${this.#count}`
    const cut = shapes[shape] as Cut
    const isFlapping = dice.chance(0.2)
    world.tell(() => `${name}: ${shape}${isFlapping ? ', flapping' : ''} (${hosts.join(' ')})`)
    const healMs = dice.between(500, CUT_MS_MAX)
    const before = this.#sim.oracle.writes
    fabric.cut(name, cut)
    if (isFlapping) this.#flap(name, cut, healMs)
    world.after(healMs, () => {
      fabric.heal(name)
      if (shape === 'split' && this.#sim.oracle.writes > before + 4) {
        world.sometimes('partition healed with edits on both sides')
      }
      world.tell(() => `${name} is healed`)
    })
  }

  /** Once a second, on and off. */
  #flap(name: string, cut: Cut, leftMs: number): void {
    const { world, fabric } = this.#sim
    if (leftMs < 2_000) return
    world.after(500, () => {
      if (this.#isOver) return
      fabric.heal(name)
      world.after(500, () => {
        if (this.#isOver) return
        fabric.cut(name, cut)
        this.#flap(name, cut, leftMs - 1_000)
      })
    })
  }

  /** Wires are clogged one by one and come free in another order (FoundationDB). */
  #swizzle(): void {
    const { world, fabric, nodes } = this.#sim
    const dice = this.#dice
    const hosts = nodes.map(({ host }) => host)
    const wires = hosts.flatMap((from) => hosts.filter((to) => to !== from).map((to) => [from, to]))
    const chosen = dice.shuffle(wires).slice(0, 1 + dice.below(wires.length))
    world.tell(() => `${chosen.length} wires are clogged one by one`)
    let atMs = 0
    for (const [from = '', to = ''] of chosen) {
      atMs += dice.between(50, 1_000)
      world.after(atMs, () => {
        if (!this.#isOver) fabric.clog(from, to)
      })
    }
    for (const [from = '', to = ''] of dice.shuffle(chosen)) {
      atMs += dice.between(50, 1_500)
      world.after(atMs, () => fabric.unclog(from, to))
    }
  }

  #crash(goesBack: boolean): void {
    const { world } = this.#sim
    const node = this.#victim()
    if (node === null) return
    world.act(() => node.crash(this.#dice.chance(0.5)))
    if (goesBack && node.rollBack()) world.sometimes('rollback with fresh writer')
    world.after(this.#dice.between(200, DOWN_MS_MAX), () => {
      if (!this.#isOver) node.start()
    })
  }

  /** In the middle of whatever was going on. */
  #dropLink(): void {
    const links = this.#victim()?.run?.cluster?.links.all() ?? []
    if (links.length > 0) this.#sim.world.act(() => this.#dice.pick(links).close('chance'))
  }

  #stall(): void {
    const ms = this.#dice.between(200, STALL_MS_MAX)
    const node = this.#victim()
    this.#sim.world.tell(() => `${node?.name} stalls for ${Math.round(ms)} ms`)
    node?.stall(ms)
  }

  #refuse(): void {
    const node = this.#victim()
    const code = this.#dice.pick(['SQLITE_FULL', 'SQLITE_IOERR'] as const)
    this.#sim.world.tell(() => `the disk of ${node?.name}: ${code}`)
    node?.disk.fail(code, this.#dice.below(6), 1 + this.#dice.below(4))
  }

  /** The machine is copied, and both copies run for a while. */
  #clone(): void {
    const { world } = this.#sim
    const node = this.#victim()
    if (node === null || this.#sim.nodes.length > 7 || this.#hasCloned) return
    this.#hasCloned = true
    const twin = this.#sim.addNode(node)
    twin.isRemoved = true
    world.sometimes('clone ran beside the original')
    world.tell(() => `${node.name} is cloned`)
    world.act(() => twin.start())
    node.lapse()
    world.after(this.#dice.between(3_000, 15_000), () => {
      const isKnown = this.#sim.up.some(({ run }) =>
        run?.cluster?.links.duplicates().some((double) => double.node === node.id),
      )
      if (isKnown) world.sometimes('clone detected')
      twin.destroy()
    })
  }

  /** A day goes by for everybody: what is old enough may go. */
  #lapse(): void {
    const { world, nodes, up } = this.#sim
    for (const { time } of nodes) time.skewMs += LAPSE_MS
    this.#noteClocks()
    world.tell(() => 'a day goes by')
    for (const node of up) {
      world.act(() => tolerate(() => node.rows.collect(node.cluster.sync.durable(), COLLECTED_MAX)))
    }
  }

  #lose(): void {
    const { core } = this.#sim
    const node = this.#victim()
    if (node === null || core.length < 3) return
    this.#sim.world.tell(() => `${node.name} is lost for good`)
    node.destroy()
  }

  #noteClocks(): void {
    for (const { time } of this.#sim.nodes) {
      this.highestMs = Math.max(this.highestMs, time.skewMs)
    }
  }

  #jump(): void {
    const node = this.#victim()
    if (node === null) return
    const byMs = this.#dice.pick([-3_600_000, -5_000, 5_000, 90_000, 180_000])
    node.time.skewMs += byMs
    this.#noteClocks()
    this.#sim.world.tell(() => `the clock of ${node.name} jumps by ${byMs} ms`)
    // An operator or NTP sets it right after a while.
    this.#sim.world.after(this.#dice.between(5_000, 30_000), () => {
      if (!this.#isOver) node.time.skewMs -= byMs
    })
  }
}

function pairIs(from: string, to: string, one: string, two: string): boolean {
  return (from === one && to === two) || (from === two && to === one)
}
