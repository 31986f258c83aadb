/** Load on a peer: smtp-source as fast as it goes, or mails at a steady rate with their latency. */
import type { Socket } from 'bun'
import { pause, SystemClock } from '../../src/base/clock.ts'
import { DOMAIN, type Peer } from './peers.ts'

const clock = new SystemClock()
const LOAD_MS_MAX = 60_000

export type Sent = { readonly isWhole: boolean; readonly cpuMs: number; readonly tookMs: number }

/** `count` mails of `sizeBytes` over `connections` at a time, a new connection for each mail. */
export async function flood(
  port: number,
  connections: number,
  count: number,
  sizeBytes: number,
): Promise<Sent> {
  const began = clock.monoMs()
  const child = Bun.spawn(
    [
      'smtp-source',
      ...['-s', String(connections), '-m', String(count), '-l', String(sizeBytes)],
      ...['-f', 'load@sender.test', '-t', `someone@${DOMAIN}`, `127.0.0.1:${port}`],
    ],
    { stdio: ['ignore', 'ignore', 'ignore'], timeout: LOAD_MS_MAX, killSignal: 'SIGKILL' },
  )
  const code = await child.exited
  const cpuMs = Number(child.resourceUsage()?.cpuTime.total ?? 0) / 1_000
  return { isWhole: code === 0, cpuMs, tookMs: clock.monoMs() - began }
}

/** `ackMs`: from the write of the last octet to its 250. `wholeMs`: from the moment it was due, connect included. */
export type Latency = {
  readonly ackMs: readonly number[]
  readonly wholeMs: readonly number[]
  readonly failed: number
}

type Mail = { readonly dueMs: number; step: number; text: string; sentMs: number; rest: Buffer }

const STEPS = [
  'EHLO load.test\r\n',
  'MAIL FROM:<load@sender.test>\r\n',
  `RCPT TO:<someone@${DOMAIN}>\r\n`,
  'DATA\r\n',
]

/**
 * An open loop: mail number n is due at n / `ratePerS`, whatever became of the others, so a stall
 * of the peer is felt by all that are due meanwhile. A new connection for each.
 */
export async function steady(
  { port }: Pick<Peer, 'port'>,
  { ratePerS, seconds, sizeBytes }: { ratePerS: number; seconds: number; sizeBytes: number },
): Promise<Latency> {
  const message = mailOf(sizeBytes)
  const ackMs: number[] = []
  const wholeMs: number[] = []
  const total = ratePerS * seconds
  let failed = 0
  let started = 0
  const { promise: ended, resolve } = Promise.withResolvers<void>()
  const over = (): void => {
    if (ackMs.length + failed === total) resolve()
  }
  const push = (socket: Socket<Mail>): void => {
    const mail = socket.data
    // Before the write: a peer that wakes on our core answers before the write returns.
    mail.sentMs = clock.monoMs()
    const taken = Math.max(0, socket.write(mail.rest))
    mail.rest = mail.rest.subarray(taken)
  }
  const fail = (mail: Mail): void => {
    if (mail.step >= 6) return
    mail.step = 6
    failed += 1
    over()
  }
  const heard = (socket: Socket<Mail>, mail: Mail, line: string): void => {
    if (line[3] === '-' || mail.step === 6) return
    if (Number(line.slice(0, 3)) >= 400) {
      fail(mail)
      socket.end()
      return
    }
    const step = mail.step
    mail.step += 1
    if (step < STEPS.length) socket.write(STEPS[step] as string)
    else if (step === STEPS.length) {
      mail.rest = message
      push(socket)
    } else {
      const nowMs = clock.monoMs()
      ackMs.push(nowMs - mail.sentMs)
      wholeMs.push(nowMs - mail.dueMs)
      socket.end('QUIT\r\n')
      over()
    }
  }
  const dial = (dueMs: number): void => {
    const data: Mail = { dueMs, step: 0, text: '', sentMs: 0, rest: Buffer.alloc(0) }
    Bun.connect<Mail>({
      hostname: '127.0.0.1',
      port,
      data,
      socket: {
        data: (socket, bytes) => {
          const mail = socket.data
          mail.text += bytes.toString('latin1')
          for (let end = mail.text.indexOf('\n'); end >= 0; end = mail.text.indexOf('\n')) {
            const line = mail.text.slice(0, end)
            mail.text = mail.text.slice(end + 1)
            heard(socket, mail, line)
          }
        },
        drain: (socket) => {
          if (socket.data.rest.length > 0) push(socket)
        },
        close: (socket) => fail(socket.data),
        error: (socket) => fail(socket.data),
      },
    }).catch(() => fail(data))
  }
  const beganMs = clock.monoMs()
  while (started < total) {
    const dueMs = beganMs + (started * 1_000) / ratePerS
    const waitMs = dueMs - clock.monoMs()
    if (waitMs > 0) await pause(clock, waitMs)
    dial(dueMs)
    started += 1
  }
  await Promise.race([ended, pause(clock, LOAD_MS_MAX)])
  return { ackMs, wholeMs, failed: total - ackMs.length }
}

/** A mail of lines of 78 octets, with the dot that ends it. */
export function mailOf(sizeBytes: number): Buffer {
  const head = `From: <load@sender.test>\r\nTo: <someone@${DOMAIN}>\r\nSubject: load\r\nMessage-ID: <1@sender.test>\r\nDate: Sat, 21 Nov 2026 10:00:00 +0000\r\n\r\n`
  const lines = Math.max(0, Math.floor((sizeBytes - head.length) / 78))
  return Buffer.from(`${head}${`${'X'.repeat(76)}\r\n`.repeat(lines)}.\r\n`)
}
