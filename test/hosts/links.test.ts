/** What a network does to a cluster: nobody is given up without need, and what was set arrives. */
import { afterAll, expect } from 'bun:test'
import { pause } from '../../src/base/clock.ts'
import { isSoak } from '../process/counts.ts'
import { cpuMsOf } from '../process/proc.ts'
import { Sink } from '../process/sink.ts'
import { clock, type HostCluster, msUntil, onHosts, promises, until } from './cluster.ts'
import { Net } from './net.ts'

/** Past suspicion and verdict: whoever was given up is dead by then. */
const VERDICT_MS = 17_000

onHosts('a network', () => {
  const net = new Net(16)
  const sink = new Sink({}, 0, clock, net.outside)
  afterAll(() => {
    sink.stop()
    net.dispose()
  })

  const promise = promises(net)

  promise(
    'that goes one way only: both stay alive, and changes go by way of the third',
    [1, 2, 3],
    async (cluster, hosts) => {
      const heal = net.oneway([1], [2])
      await alive(cluster, hosts, VERDICT_MS)
      await cluster.set(1, 'trace.keep', 21)
      await cluster.set(2, 'quarantine.keep', 33)
      expect(await cluster.msUntilSet(hosts, 'trace.keep', 21)).toBeFinite()
      expect(await cluster.msUntilSet(hosts, 'quarantine.keep', 33)).toBeFinite()
      // A way that goes in one direction only is of use in neither.
      for (const [from, to] of [
        [1, 2],
        [2, 1],
      ] as const) {
        const isCut = async () => {
          const { nodes, links } = await cluster.view(from)
          const peer = nodes.find(({ name }) => name === `mx${to}`)?.id
          return links.find((one) => one.to === peer && one.from !== peer)?.tcp === false
        }
        expect({ from, isCut: await until(isCut, 30_000) }).toEqual({ from, isCut: true })
      }
      heal()
      expect(await until(() => linked(cluster, hosts), 30_000)).toBeTrue()
    },
  )

  promise(
    'that loses one frame in ten: nobody is dead, and changes arrive',
    [4, 5, 6],
    async (cluster, hosts) => {
      const heal = net.loss(hosts, 0.1)
      await alive(cluster, hosts, VERDICT_MS)
      const took: number[] = []
      for (let n = 0; n < 20; n += 1) {
        await cluster.set(4, 'trace.keep', 100 + n)
        took.push(await cluster.msUntilSet(hosts, 'trace.keep', 100 + n))
      }
      console.info(`10 % loss: 20 changes at 3 hosts, longest ${Math.round(Math.max(...took))} ms`)
      expect(Math.max(...took)).toBeFinite()
      heal()
      expect(await until(() => cluster.agree(), 10_000)).toBeTrue()
    },
  )

  promise('without UDP: both stay alive, and say it once', [7, 8], async (cluster, hosts) => {
    const heal = net.blockUdp(hosts)
    await alive(cluster, hosts, VERDICT_MS + (isSoak ? 60_000 : 0))
    await cluster.set(7, 'trace.keep', 22)
    expect(await cluster.msUntilSet(hosts, 'trace.keep', 22)).toBeFinite()
    for (const host of hosts) {
      const said = () => cluster.node(host).log().split('"event":"member.muted"').length - 1
      expect(await until(() => said() > 0, 20_000)).toBeTrue()
      expect({ host, said: said() }).toEqual({ host, said: 1 })
    }
    const isShown = async () => {
      const { nodes, links } = await cluster.view(7)
      const here = nodes.find((node) => node.here)?.id
      return links.some(({ from, tcp, udp }) => from === here && tcp === true && udp === false)
    }
    expect(await until(isShown, 20_000)).toBeTrue()
    heal()
    const heard = async () => (await cluster.view(7)).links.every(({ udp }) => udp === true)
    expect(await until(heard, 60_000)).toBeTrue()
  })

  promise(
    'without one host: it and the others take mail, and are one again after',
    [9, 10, 11],
    async (cluster, hosts) => {
      await cluster.node(9).addDomain('cut.example', sink.nextHop)
      expect(await until(() => cluster.agree(), 10_000)).toBeTrue()
      const heal = net.isolate(11)
      const deadMs = await msUntil(async () => (await cluster.stateOf(11, 9)) === 'dead', 60_000)
      console.info(`isolated host: dead for the others after ${Math.round(deadMs)} ms`)
      expect(deadMs).toBeFinite()
      for (const host of hosts) {
        const { acked, refused } = await cluster.send(host, 'cut.example', 900 + host, 3)
        expect({ host, acked, refused }).toEqual({ host, acked: 3, refused: 0 })
      }
      expect(await sink.until(() => sink.with('@cut.example').length >= 9, 20_000)).toBeTrue()
      heal()
      const healedMs = await msUntil(() => cluster.agree(), 60_000)
      console.info(`isolated host: one again ${Math.round(healedMs)} ms after`)
      expect(healedMs).toBeFinite()
    },
  )

  promise(
    'with a host between two that do not reach each other: changes cross it, all live',
    [12, 13, 14],
    async (cluster, hosts) => {
      const heal = net.partition([12], [14])
      await alive(cluster, hosts, VERDICT_MS)
      await cluster.set(12, 'trace.keep', 23)
      expect(await cluster.msUntilSet([14], 'trace.keep', 23)).toBeFinite()
      await cluster.set(14, 'trace.keep', 24)
      expect(await cluster.msUntilSet([12], 'trace.keep', 24)).toBeFinite()
      heal()
      expect(await until(() => linked(cluster, hosts), 60_000)).toBeTrue()
    },
  )

  promise(
    'that comes and goes each second: little work, and changes arrive',
    [15, 16],
    async (cluster, hosts) => {
      const cpuMs = () => hosts.map((host) => cpuMsOf(cluster.node(host).pid))
      const rounds = isSoak ? 60 : 12
      const [before, beganMono] = [cpuMs(), clock.monoMs()]
      for (let round = 0; round < rounds; round += 1) {
        const heal = net.partition([15], [16])
        await cluster.set(15 + (round % 2), 'trace.keep', 200 + round)
        await pause(clock, 500)
        heal()
        await pause(clock, 500)
      }
      const tookMs = clock.monoMs() - beganMono
      const shares = cpuMs().map((ms, at) => (ms - (before[at] ?? 0)) / tookMs)
      console.info(
        `flapping at 1 Hz: ${shares.map((share) => (share * 100).toFixed(1)).join(' and ')} % of a core`,
      )
      // K09 allows a fifth of a core.
      for (const share of shares) expect(share).toBeLessThan(0.2)
      expect(await cluster.msUntilSet(hosts, 'trace.keep', 200 + rounds - 1)).toBeFinite()
      expect(await until(() => cluster.agree(), 30_000)).toBeTrue()
    },
  )
})

/** Nobody is taken for dead by anybody, for so long. */
async function alive(cluster: HostCluster, hosts: readonly number[], forMs: number): Promise<void> {
  const isDeath = async () =>
    (await cluster.views(hosts)).some(({ nodes }) => nodes.some(({ state }) => state === 'dead'))
  expect(await until(isDeath, forMs, 500)).toBeFalse()
}

/** Every host has a link to every other. */
async function linked(cluster: HostCluster, hosts: readonly number[]): Promise<boolean> {
  const views = await cluster.views(hosts)
  return views.every(({ nodes, links }) => {
    const here = nodes.find((node) => node.here)?.id
    return links.filter(({ from }) => from === here).every(({ tcp }) => tcp === true)
  })
}
