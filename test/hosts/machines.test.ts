/** What machines do to a cluster: stop, die, tell the wrong time, come twice, fill up, crawl. */
import { afterAll, expect, test } from 'bun:test'
import { cpSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { pause } from '../../src/base/clock.ts'
import { isSoak, PATIENCE_MS } from '../process/counts.ts'
import { accountLine, settleAccount } from '../process/ledger.ts'
import { Sink } from '../process/sink.ts'
import {
  clock,
  fillDisk,
  HostCluster,
  type HostOptions,
  holdOne,
  msUntil,
  onHosts,
  until,
} from './cluster.ts'
import { Net } from './net.ts'

const MB = 1_048_576
/** A copy of a node must be named by then. */
const NAMED_MS = 60_000

onHosts('a machine', () => {
  const net = new Net(21)
  const sink = new Sink({}, 0, clock, net.outside)
  afterAll(() => {
    sink.stop()
    net.dispose()
  })

  /** All of these at the same time: they wait more than they work. */
  const promise = (
    name: string,
    hosts: readonly number[],
    run: (cluster: HostCluster, hosts: readonly number[]) => Promise<void>,
    optionsOf: (
      host: number,
      cluster: HostCluster,
    ) => HostOptions | Promise<HostOptions> = () => ({}),
  ) =>
    test.concurrent(
      name,
      async () => {
        const cluster = new HostCluster(net)
        try {
          const [first = 1, ...others] = hosts
          await cluster.begin(first, await optionsOf(first, cluster))
          const token = await cluster.invite(first, others.length)
          for (const host of others) {
            await cluster.join(host, token, await optionsOf(host, cluster))
          }
          expect(await until(() => cluster.agree(), 30_000)).toBeTrue()
          await run(cluster, hosts)
        } finally {
          await cluster.dispose()
        }
      },
      PATIENCE_MS,
    )

  promise(
    'that stands still for a while comes back as if it had slept',
    [1, 2, 3],
    async (cluster) => {
      cluster.node(3).signal('SIGSTOP')
      const stoppedMono = clock.monoMs()
      const isDead = async () => (await cluster.stateOf(3, 1)) === 'dead'
      const deadMs = await msUntil(isDead, 60_000)
      console.info(`a process that stands still: dead after ${Math.round(deadMs)} ms`)
      expect(deadMs).toBeFinite()
      await cluster.set(1, 'trace.keep', 31)
      expect(await cluster.msUntilSet([2], 'trace.keep', 31)).toBeFinite()
      if (isSoak) await pause(clock, Math.max(0, 30_000 - (clock.monoMs() - stoppedMono)))
      cluster.node(3).signal('SIGCONT')
      expect(await cluster.msUntilSet([3], 'trace.keep', 31, 60_000)).toBeFinite()
      const backMs = await msUntil(() => cluster.agree(), 60_000)
      console.info(
        `a process that stood still: one with the others ${Math.round(backMs)} ms after it got its news`,
      )
      expect(backMs).toBeFinite()
    },
  )

  promise(
    'that dies at any moment keeps what it had answered, and gets what it missed',
    [4, 5],
    async (cluster) => {
      for (let round = 0; round < (isSoak ? 20 : 3); round += 1) {
        await cluster.set(5, 'trace.keep', 100 + round)
        await cluster.node(5).kill()
        await cluster.set(4, 'quarantine.keep', 40 + round)
        await cluster.node(5).begin()
        for (const [key, value] of [
          ['trace.keep', 100 + round],
          ['quarantine.keep', 40 + round],
        ] as const) {
          expect(await cluster.msUntilSet([4, 5], key, value)).toBeFinite()
        }
      }
      expect(await until(() => cluster.agree(), 20_000)).toBeTrue()
      expect((await cluster.views()).map(({ repairs }) => repairs)).toEqual([0, 0])
    },
  )

  for (const [offset, hosts] of [
    ['+1h', [6, 7, 8]],
    ['-1h', [17, 18, 19]],
  ] as const) {
    const [first, second, wrong] = hosts
    promise(
      `with a clock that is wrong by ${offset} changes no setting and takes mail; what was written then waits, until it is right`,
      hosts,
      async (cluster) => {
        await cluster.node(first).addDomain('clock.example', sink.nextHop)
        expect(await until(() => cluster.agree(), 10_000)).toBeTrue()
        cluster.setClock(wrong, offset)
        const isSeen = async () => (await cluster.view(wrong)).clockTrouble !== null
        expect(await until(isSeen, 60_000)).toBeTrue()
        expect(await said(cluster.set(wrong, 'trace.keep', 50))).toContain('Set the clock')
        const isAlive = async () => (await cluster.stateOf(wrong, first)) === 'alive'
        expect(await until(isAlive, 20_000)).toBeTrue()
        const { acked, refused } = await cluster.send(wrong, 'clock.example', wrong, 3)
        expect({ acked, refused }).toEqual({ acked: 3, refused: 0 })
        const arrived = () => sink.with(`k${wrong}n`).length >= 3
        expect(await sink.until(arrived, 20_000)).toBeTrue()

        // What comes from the future waits: a held mail of the one, or a setting of the others.
        const isAhead = offset === '+1h'
        const waits = isAhead ? first : wrong
        await cluster.set(first, 'trace.keep', 51)
        expect(await cluster.msUntilSet([second], 'trace.keep', 51)).toBeFinite()
        await holdOne(net.address(wrong), 'ann@clock.example')
        expect(await until(async () => (await heldOn(cluster, wrong)) === 1, 20_000)).toBeTrue()
        expect(await until(async () => (await cluster.view(waits)).parked > 0, 20_000)).toBeTrue()
        if (isAhead) expect(await heldOn(cluster, first)).toBe(0)
        else
          expect(await until(async () => (await heldOn(cluster, first)) === 1, 20_000)).toBeTrue()
        const known = isAhead ? 51 : 30
        expect(await cluster.msUntilSet([wrong], 'trace.keep', known)).toBeFinite()

        cluster.setClock(wrong, '+0')
        const isTrusted = async () => (await cluster.view(wrong)).clockTrouble === null
        expect(await until(isTrusted, 60_000)).toBeTrue()
        await cluster.set(wrong, 'quarantine.keep', 52)
        expect(await cluster.msUntilSet(hosts, 'quarantine.keep', 52)).toBeFinite()
        // The hour passes for all of them at once.
        if (isAhead) for (const host of hosts) cluster.setClock(host, '+61m')
        expect(await cluster.msUntilSet(hosts, 'trace.keep', 51, 30_000)).toBeFinite()
        for (const host of hosts) {
          expect(await until(async () => (await heldOn(cluster, host)) === 1, 30_000)).toBeTrue()
        }
        expect(await until(() => cluster.agree(), 30_000)).toBeTrue()
        const isSettled = async () => (await cluster.views()).every(({ parked }) => parked === 0)
        expect(await until(isSettled, 30_000)).toBeTrue()
      },
      (host, cluster) => ({ environment: cluster.ownClock(host) }),
    )
  }

  promise('that was copied is named, and what is set stays right', [9, 10], async (cluster) => {
    await cluster.set(10, 'trace.keep', 61)
    expect(await until(() => cluster.agree(), 10_000)).toBeTrue()
    await cluster.node(10).stop()
    const copy = join(cluster.place, 'copy')
    cpSync(cluster.dataOf(10), copy, { recursive: true })
    rmSync(join(copy, 'control.sock'), { force: true })
    await cluster.node(10).begin()
    await cluster.begin(11, { data: copy, options: ['--name', 'mx10'] })
    const isNamed = async (): Promise<boolean> => {
      const views = await cluster.views([9, 10, 11])
      return views.some(({ alarms }) => alarms.some(({ kind }) => kind === 'duplicate'))
    }
    const namedMs = await msUntil(isNamed, 2 * NAMED_MS)
    const by = (await cluster.views([9, 10, 11])).map(({ alarms }) => alarms[0]?.message ?? '-')
    console.info(
      `a copy of a node was named after ${Math.round(namedMs)} ms (bar ${NAMED_MS}): ${by.join(' | ')}`,
    )
    expect(namedMs).toBeFinite()
    // Whoever is kept, nothing of what stands is lost or comes back.
    await cluster.set(9, 'trace.keep', 62)
    await cluster.node(11).kill()
    expect(await cluster.msUntilSet([9, 10], 'trace.keep', 62, 90_000)).toBeFinite()
    await cluster.set(10, 'trace.keep', 63)
    expect(await cluster.msUntilSet([9, 10], 'trace.keep', 63, 60_000)).toBeFinite()
  })

  promise(
    'whose disk is full leaves the others alone, and recovers by itself',
    [12, 13],
    async (cluster) => {
      await cluster.node(12).addDomain('full.example', sink.nextHop)
      expect(await until(() => cluster.agree(), 10_000)).toBeTrue()
      const ballast = join(dirname(cluster.node(13).data), 'ballast')
      fillDisk(ballast)
      for (let n = 0; n < 20; n += 1) await cluster.set(12, 'trace.keep', 100 + n)
      const ledger = await cluster.send(12, 'full.example', 12, 5)
      expect(ledger.acked).toBe(5)
      const full = await cluster.send(13, 'full.example', 13, 20)
      rmSync(ballast)
      // One whose spool has failed ends itself, and its supervisor starts it again.
      const isBack = async () => {
        if (!cluster.node(13).running) await cluster.node(13).begin()
        return (await cluster.get(13, 'trace.keep')) === 119
      }
      expect(await until(isBack, 60_000)).toBeTrue()
      expect(await until(() => cluster.agree(), 60_000)).toBeTrue()
      let seed = 1_000
      const takesMail = async () => {
        seed += 1
        return (await cluster.send(13, 'full.example', seed, 1)).acked === 1
      }
      expect(await until(takesMail, 60_000)).toBeTrue()
      const account = () => settleAccount(full, sink.arrivals)
      expect(await sink.until(() => account().lost.length === 0, 20_000)).toBeTrue()
      console.info(`a host with a full disk: ${accountLine(account())}`)
      expect(account()).toMatchObject({ phantom: [], corrupt: [] })
    },
    async (host, cluster) => (host === 13 ? { data: await cluster.smallDisk(13, 200 * MB) } : {}),
  )

  promise('that crawls does not slow the others down', [14, 15, 16], async (cluster) => {
    const others = [14, 15]
    const p99 = async (from: number): Promise<number> => {
      const took: number[] = []
      for (let n = 0; n < 40; n += 1) {
        await cluster.set(14, 'trace.keep', from + n)
        took.push(await cluster.msUntilSet([15], 'trace.keep', from + n))
      }
      took.sort((one, other) => one - other)
      return took[Math.floor(took.length * 0.99)] ?? Number.NaN
    }
    const before = await p99(100)
    net.rate(16, 64)
    // More than it takes in that time: every entry is a row.
    for (let n = 0; n < 300; n += 1) await block(cluster, 14, `c${n}.example`)
    const during = await p99(200)
    net.rate(16, null)
    console.info(
      `change to ${others.length} hosts, p99: ${Math.round(before)} ms alone, ${Math.round(during)} ms beside one at 64 kbit/s`,
    )
    expect(during).toBeFinite()
    expect(await until(() => cluster.agree(), 60_000)).toBeTrue()
  })

  promise(
    'of another cluster at the address of a peer is not taken for it',
    [20, 21],
    async (cluster) => {
      await cluster.node(21).kill()
      const { clusterId } = await cluster.view(20)
      await cluster.begin(21, { data: join(cluster.place, 'other') })
      await cluster.set(20, 'trace.keep', 71)
      expect(await until(async () => (await cluster.stateOf(21, 20)) === 'dead', 60_000)).toBeTrue()
      const other = await cluster.view(21)
      expect(other.clusterId).not.toBe(clusterId)
      expect(other.nodes).toHaveLength(1)
      expect(await cluster.get(21, 'trace.keep')).not.toBe(71)
      const isSaid = async () =>
        (await cluster.view(20)).links.some(({ trouble }) =>
          trouble?.includes('belongs to another cluster'),
        )
      expect(await until(isSaid, 60_000)).toBeTrue()
    },
  )
})

/** What a refused question was answered. */
function said(asked: Promise<unknown>): Promise<string> {
  return asked.then(
    () => '',
    (error: Error) => error.message,
  )
}

async function heldOn(cluster: HostCluster, host: number): Promise<number> {
  const { rows } = await cluster.node(host).api<{ rows: unknown[] }>('/api/v1/quarantine')
  return rows.length
}

async function block(cluster: HostCluster, host: number, domain: string): Promise<void> {
  const body = JSON.stringify({ kind: 'sender', value: `@${domain}` })
  await cluster.node(host).api('/api/v1/lists/block', { method: 'POST', body })
}
