/** `doctor`: what stops this node from working, or would. Works with and without a running node. */
import { accessSync, constants, readFileSync, statSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { connect as connectTls } from 'node:tls'
import { NoSuchNameError, SystemResolver } from '../base/dns.ts'
import type { NameServer } from '../base/dns-wire.ts'
import { messageOf, RefusalError } from '../base/errors.ts'
import { codeOf, diskSpace } from '../base/files.ts'
import { parseServer } from '../config/lines.ts'
import { formatAddress, parseAddress, parseWeb } from './address.ts'
import { Api, pathOf } from './api.ts'
import type { Call } from './parse.ts'
import { bold, jsonText, plain, size } from './print.ts'
import type { StatusAnswer } from './status.ts'
import { type Address, optionOf, type Run, type World } from './world.ts'

/** One thing that was looked at. */
export type Check = {
  readonly name: string
  readonly state: 'pass' | 'warn' | 'fail'
  /** What was seen, one sentence. */
  readonly seen: string
  /** What to do about it; null when nothing. */
  readonly advice: string | null
}

/** Longest wait for one connection, name or process. */
const PATIENCE_MS = 5_000
/** Below these the node takes no mail (5 %) or warns (10 %). */
const DISK_FAIL = 0.05
const DISK_WARN = 0.1
/** A certificate that ends sooner is a warning. */
const CERTIFICATE_DAYS_WARN = 14
/** A session needs two descriptors, an inspector six; the soft limit of a shell is often 1024. */
const FILES_WARN = 4_096
/** No version of this program is older: an earlier clock is wrong. */
const CLOCK_MIN_MS = Date.UTC(2026, 0, 1)

/** Exit code 1 when a check fails; a warning is not a failure. */
export const doctor: Run = async (call, world) => {
  const dataDir = optionOf(call, '--data')
  const status = dataDir === undefined ? null : await runningStatus(dataDir)
  const checks = [
    ...(dataDir === undefined ? [] : directoryChecks(dataDir)),
    ...(status === null ? await idleChecks(call, world) : await runningChecks(world, status)),
    ...(status === null ? [] : alertChecks(status)),
    await nameCheck(world, status === null ? [] : await namedServers(dataDir ?? '')),
    clockCheck(world),
    filesCheck(),
  ]
  await world.out(call.json ? jsonText(checks) : checks.map((check) => line(world, check)).join(''))
  return checks.some(({ state }) => state === 'fail') ? 1 : 0
}

function line(world: World, { name, state, seen, advice }: Check): string {
  const word = { pass: 'ok  ', warn: 'warn', fail: 'FAIL' }[state]
  const text = `${bold(world, word)}  ${name.padEnd(14)} ${plain(seen)}\n`
  return advice === null ? text : `${text}${' '.repeat(21)}${plain(advice)}\n`
}

function pass(name: string, seen: string): Check {
  return { name, state: 'pass', seen, advice: null }
}

function bad(name: string, state: 'warn' | 'fail', seen: string, advice: string): Check {
  return { name, state, seen, advice }
}

/** Null when no node runs there. Other refusals are the answer of a node that lives. */
async function runningStatus(dataDir: string): Promise<StatusAnswer | null> {
  try {
    return await new Api(dataDir).call<StatusAnswer>('GET', '/status')
  } catch (error) {
    if (error instanceof RefusalError && error.code === 'unavailable') return null
    throw error
  }
}

function directoryChecks(dataDir: string): Check[] {
  try {
    const { mode, uid } = statSync(dataDir)
    accessSync(dataDir, constants.R_OK | constants.W_OK | constants.X_OK)
    const own = uid === process.getuid?.() || process.getuid?.() === 0
    const closed = (mode & 0o077) === 0
    const rights = (mode & 0o777).toString(8).padStart(4, '0')
    const directory = !own
      ? bad('data', 'warn', `${dataDir} belongs to user ${uid}.`, 'Run as the user of the node.')
      : closed
        ? pass('data', `${dataDir} is writable and closed to others (${rights}).`)
        : bad(
            'data',
            'fail',
            `${dataDir} is open to others (${rights}).`,
            `If it is the node's own: chmod 700 ${dataDir}`,
          )
    return [directory, diskCheck(dataDir)]
  } catch (error) {
    const absent = codeOf(error) === 'ENOENT'
    const advice = absent
      ? 'postern serve makes it.'
      : 'Give it to the user of the node, mode 0700.'
    return [bad('data', absent ? 'warn' : 'fail', `${dataDir}: ${messageOf(error)}.`, advice)]
  }
}

function diskCheck(dataDir: string): Check {
  const { freeBytes, totalBytes } = diskSpace(dataDir)
  const seen = `${size(freeBytes)} of ${size(totalBytes)} are free.`
  const part = freeBytes / totalBytes
  if (part >= DISK_WARN) return pass('disk', seen)
  const state = part < DISK_FAIL ? 'fail' : 'warn'
  return bad(
    'disk',
    state,
    seen,
    'Below 5 % no mail is taken: make room, or give it a larger disk.',
  )
}

async function runningChecks(world: World, status: StatusAnswer): Promise<Check[]> {
  const { inspectors } = status
  const ready = status.ready
    ? pass('node', `${status.name} runs version ${status.version} and is ready.`)
    : bad('node', 'fail', `${status.name} is not ready.`, status.problems.join(' '))
  const confined =
    inspectors.missing.length === 0
      ? pass('inspectors', `${inspectors.ready} of ${inspectors.processes} ready, all confined.`)
      : missingParts(inspectors.missing)
  return [
    ready,
    await greetingCheck(world, reachable(parseAddress('--smtp', status.smtp))),
    ...(await webChecks(world, status.web)),
    peersCheck(status),
    confined,
  ]
}

/** What the page Alerts says, less what is looked at above: this node and its disk, who answers. */
function alertChecks({ node, alerts = [] }: StatusAnswer): Check[] {
  const told = alerts.filter(
    (alert) =>
      alert.kind !== 'dead' &&
      !(alert.node === node && (alert.kind === 'notReady' || alert.kind === 'disk')),
  )
  return told.map(({ title, meaning, advice, command }) =>
    bad(
      'alert',
      'warn',
      `${title}. ${meaning}`,
      command === null ? advice : `${advice} ${command}`,
    ),
  )
}

/** Nodes that left or were removed are no trouble. */
function peersCheck({ node, nodes }: StatusAnswer): Check {
  const others = nodes.filter(
    ({ id, state }) => id !== node && !['left', 'evicted'].includes(state),
  )
  if (others.length === 0) return pass('peers', 'This node is alone.')
  const away = others.filter(({ state }) => state === 'dead' || state === 'suspect')
  const seen = away.map(({ name, state }) => `${name} is ${state}`).join(', ')
  if (away.length === 0) return pass('peers', `${others.length} other nodes answer.`)
  return bad('peers', 'warn', `${seen}.`, 'Look at those nodes; "postern remove" one that is gone.')
}

function missingParts(missing: readonly string[]): Check {
  const seen = `Inspectors run without ${missing.join(', ')}.`
  return bad('inspectors', 'warn', seen, 'A newer kernel, or a host that allows it, closes this.')
}

/** An address that listens everywhere is asked on loopback. */
function reachable({ host, port }: Address): Address {
  if (host === '0.0.0.0') return { host: '127.0.0.1', port }
  return host === '::' ? { host: '::1', port } : { host, port }
}

async function greetingCheck(world: World, address: Address): Promise<Check> {
  const name = 'smtp'
  const where = formatAddress(address)
  const greeting = await firstLine(world, address)
  if (greeting.startsWith('220 ')) return pass(name, `${where} greets: ${greeting}`)
  return bad(name, 'fail', `${where}: ${greeting}`, 'Look at the log of the node.')
}

function firstLine(world: World, { host, port }: Address): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect({ host, port })
    let text = ''
    const end = (answer: string) => {
      timer.cancel()
      socket.destroy()
      resolve(answer)
    }
    const timer = world.clock.after(PATIENCE_MS, () => end('no greeting in 5 s.'))
    socket.setEncoding('latin1')
    socket.on('data', (piece: string) => {
      text += piece
      if (text.includes('\n') || text.length > 1_000) end(text.split(/\r?\n/)[0] ?? '')
    })
    socket.on('error', (error) => end(`${messageOf(error)}.`))
    socket.on('close', () => end('closed without a greeting.'))
  })
}

async function webChecks(world: World, web: string): Promise<Check[]> {
  const { host, port, tls } = parseWeb('--web', web.replace(/^(https?:\/\/[^/]*).*$/, '$1'))
  const address = reachable({ host, port })
  if (!tls) {
    const answer = await firstAnswer(`http://${formatAddress(address)}/livez`)
    return [answer === 200 ? pass('web', `${web} answers.`) : webFailed(web, answer)]
  }
  const endsMs = await certificateEnd(world, address)
  if (endsMs === null) return [webFailed(web, null)]
  const days = Math.floor((endsMs - world.clock.wallMs()) / 86_400_000)
  const seen = `The certificate of ${web} ends in ${days} days.`
  const advice = 'Renew it, or remove it: the node then makes its own.'
  const certificate =
    days >= CERTIFICATE_DAYS_WARN
      ? pass('certificate', seen)
      : bad('certificate', days < 0 ? 'fail' : 'warn', seen, advice)
  return [pass('web', `${web} answers.`), certificate]
}

function webFailed(web: string, answer: number | null): Check {
  const seen = answer === null ? `${web} does not answer.` : `${web} answers ${answer}.`
  return bad('web', 'fail', seen, 'Look at the log of the node.')
}

async function firstAnswer(url: string): Promise<number | null> {
  try {
    return (await fetch(url, { signal: AbortSignal.timeout(PATIENCE_MS) })).status
  } catch {
    return null
  }
}

/** When the certificate that is shown there ends, wall ms; null when there is none to see. */
function certificateEnd(world: World, { host, port }: Address): Promise<number | null> {
  return new Promise((resolve) => {
    // Whether it is trusted is the browser's question; only its dates are read here.
    const socket = connectTls({ host, port, rejectUnauthorized: false })
    const end = (answer: number | null) => {
      timer.cancel()
      socket.destroy()
      resolve(answer)
    }
    const timer = world.clock.after(PATIENCE_MS, () => end(null))
    socket.on('secureConnect', () => {
      const endsMs = Date.parse(socket.getPeerCertificate().valid_to)
      end(Number.isNaN(endsMs) ? null : endsMs)
    })
    socket.on('error', () => end(null))
  })
}

async function idleChecks(call: Call, world: World): Promise<Check[]> {
  const smtp = optionOf(call, '--smtp') ?? '0.0.0.0:25'
  const web = optionOf(call, '--web') ?? 'https://0.0.0.0:8443'
  const peer = optionOf(call, '--peer')
  const peers = await portCheck('peers', '--peer', parseAddress('--peer', peer ?? '0.0.0.0:7946'))
  return [
    await portCheck('smtp', '--smtp', parseAddress('--smtp', smtp)),
    await portCheck('web', '--web', parseWeb('--web', web)),
    // Nobody asked for this port: the node takes another one.
    peers.state === 'fail' && peer === undefined ? { ...peers, state: 'warn' } : peers,
    await probeCheck(world),
  ]
}

/** Whether a listener could be opened: by opening it. */
function portCheck(name: string, option: string, address: Address): Promise<Check> {
  const where = formatAddress(address)
  return new Promise((resolve) => {
    const server = createServer()
    server.on('error', (error) => {
      const advice = {
        EADDRINUSE: `Another program listens there: stop it, or choose another ${option}.`,
        EACCES: `Ports below 1024 need a right (CAP_NET_BIND_SERVICE); or choose another ${option}.`,
        EADDRNOTAVAIL: `This host has no such address: choose another ${option}.`,
      }[codeOf(error)]
      resolve(
        bad(name, 'fail', `${where}: ${messageOf(error)}.`, advice ?? `Choose another ${option}.`),
      )
    })
    server.listen({ host: address.host, port: address.port }, () => {
      server.close(() => resolve(pass(name, `${where} is free.`)))
    })
  })
}

/** Starts an inspector as a node would and reads what its confinement lacks. */
async function probeCheck(world: World): Promise<Check> {
  const child = Bun.spawn([...world.command, 'inspector', '--probe'], {
    stdin: 'ignore',
    stdout: 'pipe',
    stderr: 'ignore',
    timeout: PATIENCE_MS,
    killSignal: 'SIGKILL',
  })
  const text = await new Response(child.stdout).text()
  const missing = missingOf(text)
  if (missing === null || (await child.exited) !== 0) {
    const seen = 'An inspector could not be started.'
    return bad(
      'inspectors',
      'fail',
      seen,
      'Without one all mail is deferred: run it from a shell to see why.',
    )
  }
  return missing.length === 0
    ? pass('inspectors', 'All parts of their confinement are there.')
    : missingParts(missing)
}

function missingOf(text: string): readonly string[] | null {
  try {
    return (JSON.parse(text) as { readonly missing?: readonly string[] }).missing ?? []
  } catch {
    return null
  }
}

/** Those of the setting, as the node that runs has it; empty: it asks those of the system. */
async function namedServers(dataDir: string): Promise<readonly NameServer[]> {
  const path = pathOf(['settings', 'dns.servers'])
  const { value } = await new Api(dataDir).call<{ readonly value: unknown }>('GET', path)
  return Array.isArray(value) ? value.flatMap((line) => parseServer(String(line)) ?? []) : []
}

/** `.invalid` exists nowhere (RFC 6761): a resolver that says so works, and learns nothing. */
async function nameCheck(world: World, servers: readonly NameServer[]): Promise<Check> {
  try {
    await new SystemResolver(world.clock, () => servers).mx('postern-doctor.invalid')
    return bad('names', 'warn', 'The name server invents answers.', 'Use one that does not.')
  } catch (error) {
    if (error instanceof NoSuchNameError) return pass('names', 'The name server answers.')
    const where = servers.length === 0 ? '/etc/resolv.conf' : 'the setting dns.servers'
    const advice = `Check ${where}: next hops given by name, MX and lists need it.`
    return bad('names', 'warn', `The name server does not answer: ${messageOf(error)}.`, advice)
  }
}

function clockCheck(world: World): Check {
  const nowMs = world.clock.wallMs()
  const seen = `It is ${new Date(nowMs).toISOString()}.`
  if (nowMs >= CLOCK_MIN_MS) return pass('clock', seen)
  return bad('clock', 'fail', seen, 'Set the clock: retries, expiry and certificates go by it.')
}

function filesCheck(): Check {
  const limits = readLimits()
  const files = Number(/^Max open files\s+(\d+)/m.exec(limits)?.[1] ?? Number.POSITIVE_INFINITY)
  const seen = `${files} files and connections may be open at a time.`
  if (files >= FILES_WARN)
    return pass('files', Number.isFinite(files) ? seen : 'No limit is known.')
  return bad('files', 'warn', seen, 'Raise it in the unit (LimitNOFILE) or the shell (ulimit -n).')
}

function readLimits(): string {
  try {
    return readFileSync('/proc/self/limits', 'latin1')
  } catch {
    return ''
  }
}
