/** What goes wrong in a simulated cluster that takes mail, and when. */
import type { Dice } from './dice.ts'
import type { MailSimulation } from './mail-simulate.ts'
import type { Cut } from './network.ts'
import { type SimNode, tolerate } from './node.ts'

/** Weights, 0..1; 0: not in this seed. */
export type MailFaultRates = {
  /** Mean time between two faults, ms. */
  readonly everyMs: number
  readonly kills: number
  readonly powerCuts: number
  /** Of all nodes together. */
  readonly allCuts: number
  readonly stalls: number
  readonly suspends: number
  readonly cuts: number
  readonly drops: number
  /** No next hop answers, or not to one node. */
  readonly hops: number
  readonly fulls: number
  readonly syncs: number
  readonly clocks: number
  readonly drains: number
  /** What happens once to one disk. */
  readonly loss: 'none' | 'destroyed' | 'wiped' | 'rolled back'
}

export const NO_FAULTS: MailFaultRates = {
  everyMs: 10_000,
  kills: 0,
  powerCuts: 0,
  allCuts: 0,
  stalls: 0,
  suspends: 0,
  cuts: 0,
  drops: 0,
  hops: 0,
  fulls: 0,
  syncs: 0,
  clocks: 0,
  drains: 0,
  loss: 'none',
}

export class MailFaults {
  readonly #sim: MailSimulation
  readonly #dice: Dice
  #isOver = false
  #count = 0

  constructor(sim: MailSimulation, dice: Dice) {
    this.#sim = sim
    this.#dice = dice
  }

  begin(): void {
    this.#next()
    const { seconds, faults } = this.#sim.knobs
    if (faults.loss === 'none') return
    this.#sim.world.after(this.#dice.between(seconds * 200, seconds * 1_000), () => this.#lose())
  }

  end(): void {
    this.#isOver = true
  }

  /** People tell the cluster which machines are gone for good, at once or after a while. */
  removeLost(): void {
    const { world, cluster, nodes, knobs } = this.#sim
    for (const node of nodes) {
      if (!node.isDestroyed || node.isRemoved) continue
      const remove = (): void => {
        const remover = cluster.up.find(
          ({ id, run }) => run?.cluster != null && !this.#sim.isStopped(id),
        )
        const isOut =
          remover !== undefined && tolerate(() => remover.cluster.roster.evict(node.id, 'ruiz'))
        world.tell(() => `${remover?.name} removes ${node.name}: ${isOut}`)
        if (isOut) node.isRemoved = true
        else world.after(5_000, remove)
      }
      world.after(this.#dice.pick([0, 300_000 / knobs.timeScale]), remove)
    }
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
    const rates = this.#sim.knobs.faults
    const menu: readonly (readonly [weight: number, act: () => void])[] = [
      [rates.kills, () => this.#crash(false)],
      [rates.powerCuts, () => this.#crash(true)],
      [rates.allCuts, () => this.#crashAll()],
      [rates.stalls, () => this.#stall()],
      [rates.suspends, () => this.#suspend()],
      [rates.cuts, () => this.#cut()],
      [rates.drops, () => this.#dropLink()],
      [rates.hops, () => this.#closeHops()],
      [rates.fulls, () => this.#fill()],
      [rates.syncs, () => this.#failSync()],
      [rates.clocks, () => this.#jump()],
      [rates.drains, () => this.#drain()],
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
    const { up } = this.#sim.cluster
    return up.length === 0 ? null : this.#dice.pick(up)
  }

  /** Long against the scaled times of adoption in one of four cases. */
  #long(): number {
    const { timeScale } = this.#sim.knobs
    return this.#dice.chance(0.25)
      ? this.#dice.between(120_000, 1_500_000) / timeScale
      : this.#dice.between(300, 12_000)
  }

  #crash(power: boolean): void {
    const { world } = this.#sim
    const node = this.#victim()
    if (node === null) return
    world.act(() => node.crash(power))
    world.after(this.#long(), () => {
      if (!this.#isOver) node.start()
    })
  }

  #crashAll(): void {
    const { world, cluster } = this.#sim
    world.tell(() => 'the power of all is cut')
    world.sometimes('power cut of all')
    for (const node of cluster.up) {
      world.act(() => node.crash(true))
      world.after(this.#dice.between(200, 20_000), () => {
        if (!this.#isOver) node.start()
      })
    }
  }

  #stall(): void {
    const ms = this.#long()
    const node = this.#victim()
    this.#sim.world.tell(() => `${node?.name} is stopped for ${Math.round(ms)} ms`)
    node?.stall(ms)
  }

  #suspend(): void {
    const ms = this.#long()
    const node = this.#victim()
    this.#sim.world.tell(() => `${node?.name} is suspended for ${Math.round(ms)} ms`)
    node?.suspend(ms)
  }

  #cut(): void {
    const { world, cluster, nodes } = this.#sim
    const dice = this.#dice
    const shuffled = dice.shuffle(nodes)
    const some = shuffled.slice(0, 1 + dice.below(Math.max(1, nodes.length - 1)))
    // Of the machines, or of the network of the peers only: the witness still hears the other side.
    const isWhole = dice.chance(0.5)
    const side = new Set(some.flatMap(({ host, smtpHost }) => [host, smtpHost]))
    const isWire = (host: string): boolean => isWhole || isPeerHost(host)
    this.#count += 1
    const name = `cut ${this.#count}`
    const cut: Cut = (from, to) => isWire(from) && isWire(to) && side.has(from) !== side.has(to)
    const ms = this.#long()
    world.tell(
      () =>
        `${name} of ${some.map((node) => node.name).join(' ')}, ` +
        `${isWhole ? 'all' : 'peers only'}, ${Math.round(ms)} ms`,
    )
    cluster.fabric.cut(name, cut)
    world.after(ms, () => {
      cluster.fabric.heal(name)
      world.tell(() => `${name} is healed`)
    })
  }

  #dropLink(): void {
    const links = this.#victim()?.run?.cluster?.links.all() ?? []
    if (links.length > 0) this.#sim.world.act(() => this.#dice.pick(links).close('chance'))
  }

  #closeHops(): void {
    const { world, hops } = this.#sim
    const ms = this.#long()
    const node = this.#dice.chance(0.4) ? this.#victim() : null
    world.tell(() => `no next hop answers ${node?.name ?? 'anybody'} for ${Math.round(ms)} ms`)
    if (node === null) hops.isDown = true
    else hops.unreached.add(node)
    world.after(ms, () => {
      if (node === null) hops.isDown = false
      else hops.unreached.delete(node)
    })
  }

  #fill(): void {
    const { world } = this.#sim
    const node = this.#victim()
    if (node === null) return
    const isFull = this.#dice.chance(0.5)
    world.tell(() => `the disk of ${node.name} is ${isFull ? 'full' : 'nearly full'}`)
    if (isFull) node.spool.isFull = true
    else node.spool.free = this.#dice.pick([0.03, 0.08])
    world.after(this.#long(), () => {
      node.spool.isFull = false
      node.spool.free = 0.5
    })
  }

  #failSync(): void {
    const node = this.#victim()
    this.#sim.world.tell(() => `the disk of ${node?.name} fails a sync`)
    if (node !== null) node.spool.failingSyncs = 1
  }

  #jump(): void {
    const { world } = this.#sim
    const node = this.#victim()
    if (node === null) return
    const byMs = this.#dice.pick([-600_000, -5_000, 5_000, 600_000])
    node.time.skewMs += byMs
    world.tell(() => `the clock of ${node.name} jumps by ${byMs} ms`)
    world.after(this.#dice.between(5_000, 60_000), () => {
      node.time.skewMs -= byMs
    })
  }

  /** A reboot as it should be done; others can be told to, too. */
  #drain(): void {
    const { world } = this.#sim
    const node = this.#victim()
    if (node === null) return
    world.tell(() => `${node.name} is drained`)
    const set = (drain: 'accepting' | 'draining'): void => {
      const { run } = node
      if (run?.cluster === null || run === null || node.isRemoved) return
      world.act(() => tolerate(() => node.cluster.roster.setDrain(node.id, drain, 'ruiz')))
    }
    set('draining')
    const undrain = (): void => {
      const me = node.run?.cluster?.roster.get(node.id) ?? null
      if (me === null && !node.isDestroyed) world.after(5_000, undrain)
      else if (me !== null && me.drain !== 'accepting') set('accepting')
    }
    world.after(this.#dice.between(2_000, 40_000), undrain)
  }

  #lose(): void {
    const { world, knobs, cluster } = this.#sim
    const node = this.#victim()
    const { loss } = knobs.faults
    if (node === null || this.#isOver || cluster.core.length < 2) return
    if (loss === 'rolled back') return this.#rollBack(node)
    world.tell(() => `${node.name} is lost: ${loss}`)
    this.#sim.lost(node)
    if (loss === 'destroyed') {
      world.act(() => node.destroy(this.#dice.chance(0.5)))
      return
    }
    world.act(() => node.crash(true))
    node.wipeSpool()
    world.after(this.#long(), () => node.start())
  }

  /** A snapshot of its machine is taken now, and put back later. */
  #rollBack(node: SimNode): void {
    const { world } = this.#sim
    const image = node.snapshot()
    world.after(this.#dice.between(2_000, 30_000), () => {
      if (this.#isOver || node.isDestroyed) return
      this.#sim.lost(node, image.atMs)
      world.sometimes('rolled back')
      world.act(() => node.crash(true))
      node.restore(image)
      world.after(this.#dice.between(200, 10_000), () => node.start())
    })
  }
}

/** Peers listen at other addresses than those where mail comes in. */
function isPeerHost(host: string): boolean {
  return host.startsWith('10.0.')
}
