/** Scanners beside us as others made them: clamd, a c-icap with clamd behind it, Rspamd, SpamAssassin. */
import { afterAll, beforeAll, expect, test } from 'bun:test'
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pause, SystemClock } from '../src/base/clock.ts'
import { Observer } from '../src/base/observe.ts'
import { initialSettings } from '../src/config/schema.ts'
import { Engines } from '../src/mail/inspect/engines/engines.ts'
import { PLAIN_CONFIG } from '../src/mail/inspect/look.ts'
import type { Body } from '../src/message/body.ts'
import { ENVELOPE } from './look.ts'
import { freePort } from './ports.ts'
import { clamdCommand } from './process/clamd.ts'
import { rspamdCommand } from './process/rspamd.ts'
import { needs } from './real.ts'

const clock = new SystemClock()
const START_MS_MAX = 60_000

/** A program of the test's own in a directory of its own; ends with the suite. */
class Peer {
  readonly directory = mkdtempSync(join(tmpdir(), 'postern-engine-'))
  #process: Bun.Subprocess | null = null

  constructor() {
    chmodSync(this.directory, 0o755)
  }

  write(name: string, lines: readonly string[]): string {
    const path = join(this.directory, name)
    mkdirSync(join(path, '..'), { recursive: true, mode: 0o755 })
    writeFileSync(path, `${lines.join('\n')}\n`)
    return path
  }

  /** Resolves when something listens at `port`. @throws with what it said */
  async start(command: readonly string[], port: number): Promise<void> {
    const child = Bun.spawn([...command], {
      cwd: this.directory,
      stdin: 'ignore',
      stdout: Bun.file(join(this.directory, 'out')),
      stderr: Bun.file(join(this.directory, 'err')),
    })
    this.#process = child
    const untilMs = clock.monoMs() + START_MS_MAX
    while (clock.monoMs() < untilMs && child.exitCode === null) {
      const isUp = await Bun.connect({ hostname: '127.0.0.1', port, socket: { data() {} } }).then(
        (socket) => socket.end() !== undefined || true,
        () => false,
      )
      if (isUp) return
      await pause(clock, 100)
    }
    const said = await Promise.all(
      ['out', 'err', 'log'].map((name) =>
        Bun.file(join(this.directory, name))
          .text()
          .catch(() => ''),
      ),
    )
    throw new Error(`${command[0]} does not listen: ${said.join('\n').slice(-2_000)}`)
  }

  async stop(): Promise<void> {
    this.#process?.kill()
    await this.#process?.exited
    rmSync(this.directory, { recursive: true, force: true })
  }
}

const EICAR = 'X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*'
const GTUBE = 'XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X'

function mail(text: string): Body {
  const lines = [
    'From: Ann <ann@sender.example>',
    'To: b@ours.example',
    'Subject: The minutes of Monday',
    'Date: Mon, 23 Nov 2026 10:00:00 +0000',
    'Message-ID: <minutes@sender.example>',
    'MIME-Version: 1.0',
    'Content-Type: text/plain',
    '',
    text,
    '',
  ]
  return { kind: 'memory', bytes: Buffer.from(lines.join('\r\n')) }
}

async function ask(line: string, body: Body) {
  const engines = new Engines({ clock, observer: new Observer(clock, () => {}) })
  return await engines.ask({
    envelope: ENVELOPE,
    body,
    inspectors: [],
    config: {
      ...PLAIN_CONFIG,
      settings: { ...initialSettings(), 'engines.list': [line], 'engines.timeout': 60 },
    },
    clientName: null,
    sha256: null,
    budgetMs: 60_000,
  })
}

/** clamd with one signature of our own: the test virus. */
async function startClamd(peer: Peer, port: number): Promise<void> {
  const signatures = { 'Eicar.Test': EICAR }
  const command = clamdCommand(peer.directory, port, signatures, ['StreamMaxLength 1M'])
  await peer.start(command, port)
}

needs('clamav-daemon', 'root')('clamd', () => {
  const peer = new Peer()
  const port = freePort()
  beforeAll(() => startClamd(peer, port), START_MS_MAX)
  afterAll(() => peer.stop())

  test(
    'finds the test virus, and nothing in a letter',
    async () => {
      const bad = await ask(`clamd clamd://127.0.0.1:${port}`, mail(EICAR))
      expect(bad.findings).toMatchObject([{ rule: 'VIRUS_CLAMD' }])
      expect(bad.findings[0]?.evidence).toContain('Eicar.Test')
      const good = await ask(`clamd clamd://127.0.0.1:${port}`, mail('Hello.'))
      expect(good).toEqual({ findings: [], unknowns: [] })
    },
    START_MS_MAX,
  )

  test(
    'a mail that is too large for it is unknown, never clean',
    async () => {
      const large = await ask(`clamd clamd://127.0.0.1:${port}`, mail('x'.repeat(3_000_000)))
      expect(large.findings).toEqual([])
      expect(large.unknowns).toMatchObject([{ inspector: 'clamd' }])
    },
    START_MS_MAX,
  )
})

needs(
  'clamav-daemon',
  'c-icap',
  'root',
)('c-icap with clamd behind it', () => {
  const clamd = new Peer()
  const icap = new Peer()
  const [clamdPort, port] = [freePort(), freePort()]
  beforeAll(async () => {
    await startClamd(clamd, clamdPort)
    const config = icap.write('c-icap.conf', [
      `Port 127.0.0.1:${port}`,
      `PidFile ${join(icap.directory, 'pid')}`,
      `CommandsSocket ${join(icap.directory, 'ctl')}`,
      `ServerLog ${join(icap.directory, 'log')}`,
      `AccessLog ${join(icap.directory, 'access')}`,
      `TmpDir ${icap.directory}`,
      'ModulesDir /usr/lib/x86_64-linux-gnu/c_icap',
      'ServicesDir /usr/lib/x86_64-linux-gnu/c_icap',
      'TemplateDir /usr/share/c_icap/templates/',
      'StartServers 1',
      'MaxServers 1',
      'User root',
      'Group root',
      'Service antivirus virus_scan.so',
      'ServiceAlias avscan virus_scan?allow204=on&sizelimit=off&mode=simple',
      'virus_scan.ScanFileTypes TEXT DATA EXECUTABLE ARCHIVE GIF JPEG MSOFFICE',
      'virus_scan.SendPercentData 5',
      'virus_scan.DefaultEngine clamd',
      'Module common clamd_mod.so',
      'clamd_mod.ClamdHost 127.0.0.1',
      `clamd_mod.ClamdPort ${clamdPort}`,
    ])
    await icap.start(['/usr/bin/c-icap', '-N', '-f', config], port)
  }, START_MS_MAX)
  afterAll(async () => {
    await icap.stop()
    await clamd.stop()
  })

  test(
    'finds the test virus, and nothing in a letter',
    async () => {
      const line = `icap icap://127.0.0.1:${port}/avscan`
      const bad = await ask(line, mail(EICAR))
      expect(bad.findings).toMatchObject([{ rule: 'VIRUS_ICAP' }])
      expect(bad.findings[0]?.evidence).toContain('Eicar')
      expect(await ask(line, mail('Hello.'))).toEqual({ findings: [], unknowns: [] })
    },
    START_MS_MAX,
  )
})

needs('spamd')('SpamAssassin', () => {
  const peer = new Peer()
  const port = freePort()
  beforeAll(
    () =>
      peer.start(
        [
          '/usr/sbin/spamd',
          '-L',
          '-x',
          '-m',
          '1',
          '-i',
          '127.0.0.1',
          '-A',
          '127.0.0.1',
          '-p',
          `${port}`,
        ],
        port,
      ),
    START_MS_MAX,
  )
  afterAll(() => peer.stop())

  test(
    'gives the test spam its highest score here, and a letter little',
    async () => {
      const bad = await ask(`sa spamd://127.0.0.1:${port}`, mail(GTUBE))
      expect(bad.unknowns).toEqual([])
      expect(bad.findings).toMatchObject([{ rule: 'SA_SCORE', score: 12 }])
      expect(bad.findings[0]?.evidence).toContain('GTUBE')
      const good = await ask(`sa spamd://127.0.0.1:${port}`, mail('Hello.'))
      expect(good.unknowns).toEqual([])
      expect(good.findings[0]?.score).toBeLessThan(8)
    },
    START_MS_MAX,
  )
})

needs('rspamd', 'root')('Rspamd', () => {
  const peer = new Peer()
  const port = freePort()
  beforeAll(async () => {
    await peer.start(
      await rspamdCommand(peer.directory, { scanner: port, milter: null, clamd: null }),
      port,
    )
  }, START_MS_MAX)
  afterAll(() => peer.stop())

  test(
    'gives the test spam its highest score here, and a letter little',
    async () => {
      const bad = await ask(`rspamd rspamd://127.0.0.1:${port}`, mail(GTUBE))
      expect(bad.unknowns).toEqual([])
      expect(bad.findings).toMatchObject([{ rule: 'RSPAMD_SCORE', score: 12 }])
      const good = await ask(`rspamd rspamd://127.0.0.1:${port}`, mail('Hello.'))
      expect(good.unknowns).toEqual([])
      expect(good.findings[0]?.score).toBeLessThan(8)
    },
    START_MS_MAX,
  )
})
