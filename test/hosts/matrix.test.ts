/**
 * The failure matrix of the design over real processes on hosts: whatever happens to one node, a
 * mail that got 250 with two copies arrives, and duplicates come only from causes that are named
 * and counted. Prints one table.
 */
import { afterAll, expect, test } from 'bun:test'
import { rmSync } from 'node:fs'
import { pause } from '../../src/base/clock.ts'
import { COUNTS, PATIENCE_MS } from '../process/counts.ts'
import { clock, type HostOptions, onHosts, until } from './cluster.ts'
import { Net } from './net.ts'
import { Backend, inTurn, Stage, TIME_SCALE, type Told, tableOf } from './stage.ts'

/** Of the design, divided as the nodes divide it: silence that is adopted. */
const SILENT_MS = 600_000 / TIME_SCALE
/** One third more: what must have happened by then. */
const LONG_CUT_MS = (SILENT_MS * 4) / 3
const MAILS = 20
const DRAINED = COUNTS.hosts.drained
/** Of a node with ten thousand mails in its queue. */
const DRAIN_MS_MAX = 60_000

onHosts('the failure matrix', () => {
  const net = new Net(36)
  const backend = new Backend(net)
  const table: Told[] = []
  afterAll(() => {
    console.info(tableOf(table))
    backend.sink.stop()
    net.dispose()
  })

  /** `duplicates`: at most so many, each counted by a node. */
  const history = (
    name: string,
    hosts: readonly number[],
    duplicates: number,
    run: (stage: Stage, hosts: readonly number[]) => Promise<void>,
    optionsOf?: (host: number) => HostOptions,
  ) =>
    test.concurrent(
      name,
      () =>
        inTurn(async () => {
          const stage = await Stage.set(net, backend, hosts, optionsOf)
          try {
            await run(stage, hosts)
            expect(await stage.delivered()).toBeTrue()
            expect(await stage.settled()).toBeTrue()
            const told = await stage.told(name)
            table.push(told)
            const { lost, phantom, corrupt } = stage.account()
            expect({ lost, phantom, corrupt }).toEqual({ lost: [], phantom: [], corrupt: [] })
            expect(told.duplicated).toBeLessThanOrEqual(Math.min(duplicates, told.counted))
          } finally {
            await stage.cluster.dispose()
          }
        }),
      PATIENCE_MS,
    )

  history('the owner is killed after 250 and never comes back', [1, 2, 3], 0, async (stage) => {
    await stage.send(1, MAILS)
    await stage.cluster.node(1).kill()
    stage.fault()
    stage.open()
    expect(await stage.delivered()).toBeTrue()
  })

  history(
    'the owner is killed within 100 ms of the 250 and its directory removed, in a cluster of two',
    [4, 5],
    0,
    async (stage) => {
      await stage.send(4, 1)
      const killed = stage.cluster.node(4).kill()
      stage.fault()
      await killed
      rmSync(stage.cluster.dataOf(4), { recursive: true, force: true })
      stage.open()
      expect(await stage.delivered()).toBeTrue()
      await stage.send(5, MAILS)
    },
  )

  history('the owner is gone and removed by an operator: at once', [6, 7, 8], 0, async (stage) => {
    await stage.send(6, MAILS)
    const id = await stage.cluster.idOf(6)
    await stage.cluster.node(6).kill()
    stage.open()
    stage.fault()
    await stage.cluster.node(7).api(`/api/v1/nodes/${id}`, { method: 'DELETE' })
    expect(await stage.delivered()).toBeTrue()
  })

  history(
    'the owner is killed between the 250 of the next hop and DONE, and starts again',
    [9, 10, 11],
    1,
    async (stage) => {
      let kills = 0
      backend.atDot(stage.domain, () => {
        if (kills > 0) return { reply: '250 2.0.0 Kept' }
        kills += 1
        stage.cluster.node(9).signal('SIGKILL')
        return { reply: '250 2.0.0 Kept' }
      })
      stage.open()
      await stage.send(9, 1)
      expect(await until(() => !stage.cluster.node(9).running, 20_000)).toBeTrue()
      await stage.cluster.node(9).begin()
      await stage.send(10, MAILS)
    },
  )

  history(
    'a mirror is killed while mail comes in: the other one takes the copies',
    [12, 13, 14],
    0,
    async (stage) => {
      const alone = () => stage.cluster.node(12).metric('postern_unreplicated_accepts_total')
      // Those with which the stage has asked whether copies flow.
      const before = await alone()
      const load = stage.load(12)
      expect(await stage.ledger.untilAcked(MAILS, 60_000)).toBeTrue()
      await stage.cluster.node(13).kill()
      const { acked } = stage.ledger
      expect(await stage.ledger.untilAcked(acked + MAILS, 60_000)).toBeTrue()
      await load.stop()
      expect(await alone()).toBe(before)
      // With both mirrors there once more nothing has one copy only; then the owner goes.
      await stage.cluster.node(13).begin()
      const isHealed = async () => (await stage.cluster.node(12).metric('postern_alone')) === 0
      expect(await until(isHealed, 60_000)).toBeTrue()
      await stage.cluster.node(12).kill()
      stage.fault()
      stage.open()
      expect(await stage.delivered()).toBeTrue()
    },
  )

  history(
    'a short partition: nobody takes over, nothing doubles',
    [15, 16, 17],
    0,
    async (stage) => {
      await stage.send(15, MAILS)
      const heal = net.partition([15], [16, 17])
      await stage.send(15, 5)
      await stage.send(16, 5)
      await pause(clock, SILENT_MS / 10)
      heal()
      stage.open()
    },
  )

  history(
    'a long partition: the larger side takes over, the smaller one holds, nothing doubles',
    [18, 19, 20],
    0,
    async (stage) => {
      await stage.send(18, MAILS)
      const heal = net.partition([18], [19, 20])
      stage.fault()
      await pause(clock, LONG_CUT_MS)
      stage.open()
      expect(await stage.delivered()).toBeTrue()
      heal()
      expect(await until(() => stage.cluster.agree(), 60_000)).toBeTrue()
    },
  )

  history(
    'the owner stands still for long, with mail on several mirrors, and goes on',
    [21, 22, 23, 24],
    0,
    async (stage) => {
      await stage.send(21, MAILS)
      stage.cluster.node(21).signal('SIGSTOP')
      stage.fault()
      await pause(clock, LONG_CUT_MS)
      stage.open()
      expect(await stage.delivered()).toBeTrue()
      stage.cluster.node(21).signal('SIGCONT')
      expect(await until(() => stage.cluster.agree(), 60_000)).toBeTrue()
    },
  )

  history(
    'of two nodes one is dead for good: the other takes over and goes on alone',
    [25, 26],
    0,
    async (stage) => {
      await stage.send(25, MAILS)
      await stage.send(26, MAILS)
      await stage.cluster.node(25).kill()
      stage.fault()
      stage.open()
      await stage.send(26, MAILS)
    },
  )

  history('a rolling restart under load', [27, 28, 29], 0, async (stage, hosts) => {
    stage.open()
    const loads = hosts.map((host) => stage.load(host, { connections: 1 }))
    expect(await stage.ledger.untilAcked(MAILS * 5, 60_000)).toBeTrue()
    for (const host of hosts) {
      await stage.cluster.node(host).stop()
      await stage.cluster.node(host).begin()
      expect(await until(() => stage.cluster.agree(), 60_000)).toBeTrue()
      const { acked } = stage.ledger
      expect(await stage.ledger.untilAcked(acked + MAILS, 60_000)).toBeTrue()
    }
    await Promise.all(loads.map((load) => load.stop()))
    const replies = [...stage.ledger.entries.values()].flatMap(({ fate, reply }) =>
      fate === 'refused' ? [reply] : [],
    )
    const others = replies.filter((reply) => !/^421|lost|not sent/.test(reply))
    expect(others).toEqual([])
  })

  const drain = async (stage: Stage): Promise<void> => {
    await stage.send(30, DRAINED)
    const began = clock.monoMs()
    await stage.cluster.node(31).api('/api/v1/nodes/mx30/drain', { method: 'POST' })
    const isDrained = async () => (await stage.cluster.stateOf(30, 31)) === 'drained'
    expect(await until(isDrained, DRAIN_MS_MAX)).toBeTrue()
    expect((await stage.cluster.node(30).status()).queue.messages).toBe(0)
    console.info(`drain of ${DRAINED} queued mails: ${Math.round(clock.monoMs() - began)} ms`)
    await stage.cluster.node(30).stop()
    stage.fault()
    stage.open()
  }
  // The time for a drain is the true one here: it is not to end before the queue has gone.
  const trueTimes = () => ({ options: ['--time-scale', '1'] })
  history('a drain with a queue: it is handed over', [30, 31, 32], 0, drain, trueTimes)
})
