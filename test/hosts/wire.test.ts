/** What goes between hosts: nobody on the way reads it, and a quiet cluster says little. */
import { afterAll, expect, test } from 'bun:test'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PATIENCE_MS } from '../process/counts.ts'
import { HostCluster, holdOne, onHosts, PEER_PORT, SMTP_PORT, until } from './cluster.ts'
import { Net } from './net.ts'
import { quiet } from './quiet.ts'

/** Bars of a quiet cluster: bytes a second of a node, both ways, and its part of a core. */
const QUIET_BYTES = 2_048
const IDLE_SHARE = 0.01

onHosts('the wire', () => {
  const net = new Net(3)
  const place = mkdtempSync(join(tmpdir(), 'postern-wire-'))
  afterAll(() => {
    net.dispose()
    rmSync(place, { recursive: true, force: true })
  })

  test(
    'shows nothing of a mail, an address, a name or a setting',
    async () => {
      const [peers, clients] = [join(place, 'peers.pcap'), join(place, 'clients.pcap')]
      const captures = [
        await net.capture(peers, `port ${PEER_PORT}`),
        await net.capture(clients, `port ${SMTP_PORT}`),
      ]
      const cluster = await HostCluster.start(net, [1, 2])
      try {
        const node = cluster.node(1)
        await node.addDomain('planted-domain.example', 'smtp://planted-hop.example:25')
        await cluster.node(2).api('/api/v1/lists/block', {
          method: 'POST',
          body: JSON.stringify({
            kind: 'sender',
            value: 'planted-sender@b.example',
            note: 'planted-note',
          }),
        })
        await holdOne(net.address(1), 'planted-recipient@planted-domain.example', 'planted-subject')
        const rows = async () =>
          (await cluster.node(2).api<{ rows: { id: string }[] }>('/api/v1/quarantine')).rows
        expect(await until(async () => (await rows()).length === 1, 20_000)).toBeTrue()
        const [held] = await rows()
        // The body crosses too, when it is looked at elsewhere.
        const source = await cluster.node(2).fetch(`/api/v1/quarantine/${held?.id}/source`)
        expect(await source.text()).toContain('planted-subject')
      } finally {
        await cluster.dispose()
        for (const capture of captures) await capture.stop()
      }
      // What a client says in clear text is seen: the eye is open.
      expect(readFileSync(clients).includes('planted-subject')).toBeTrue()
      const bytes = readFileSync(peers)
      console.info(`captured ${bytes.length} B between two nodes`)
      expect(bytes.length).toBeGreaterThan(10_000)
      const planted = ['planted', 'GTUBE', 'ANTI-UBE', 'nextHops', 'mx1', 'mx2', 'setting']
      expect(planted.filter((word) => bytes.includes(word))).toEqual([])
      // UTF-16 as well, should something ever write that.
      expect(bytes.includes(Buffer.from('planted', 'utf16le'))).toBeFalse()
    },
    PATIENCE_MS,
  )

  test(
    'is all but silent between three quiet nodes',
    async () => {
      const cost = await quiet(net, [1, 2, 3], 20_000)
      console.info(
        `3 quiet nodes: ${cost.bytesPerS.toFixed(0)} B/s a node (in and out; bar ${QUIET_BYTES}), CPU ${(cost.cpuShare * 100).toFixed(2)} % of a core (bar ${IDLE_SHARE * 100})`,
      )
      expect(cost.bytesPerS).toBeLessThan(QUIET_BYTES)
    },
    PATIENCE_MS,
  )
})
