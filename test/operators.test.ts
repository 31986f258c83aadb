/** Who may act: operators, their sessions and tokens, on one node and on all of them. */
import { describe, expect, test } from 'bun:test'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { RefusalError } from '../src/base/errors.ts'
import { carry, meet } from './exchange.ts'
import { failure, refusal, rooms } from './rooms.ts'

const { apart, reopened, room } = rooms()

const IP = '192.0.2.1'
const ruiz = { name: 'ruiz', password: 'correct horse', role: 'admin' }
const nagy = { name: 'nagy', password: 'battery staple', role: 'viewer' }

describe('operators', () => {
  test('begin with a code that opens once, is kept over a restart, and is gone with the first', async () => {
    const first = room()
    const code = first.operators.setupCode ?? ''
    expect(code).toMatch(/^[a-z2-9]{4}(-[a-z2-9]{4}){3}$/)
    const second = reopened(first)
    expect(second.operators.setupCode).toBe(code)
    expect(
      second.operators.setupCodeMatches(` ${code.toUpperCase().replaceAll('-', ' ')}`, IP),
    ).toBe(true)
    const input = { code, name: 'Ruiz', password: 'correct horse', clientIp: IP }
    expect(await failure(() => second.operators.setup({ ...input, code: 'x' }))).toMatchObject({
      code: 'forbidden',
    })
    const both = await Promise.allSettled([
      second.operators.setup(input),
      second.operators.setup({ ...input, name: 'other' }),
    ])
    expect(both.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected'])
    expect(second.operators.setupCode).toBeNull()
    expect(existsSync(join(second.directory, 'setup-code'))).toBe(false)
    expect(second.operators.setupCodeMatches(code, IP)).toBe(false)
    expect(await failure(() => second.operators.setup(input))).toMatchObject({ code: 'conflict' })
    const third = reopened(second)
    expect(third.operators.setupCode).toBeNull()
    expect(third.operators.list().map(({ role }) => role)).toEqual(['admin'])
  })

  test('close the set-up also when the first comes by the command line', async () => {
    const { operators, directory } = room()
    await operators.add('cli', ruiz)
    expect(operators.setupCode).toBeNull()
    expect(existsSync(join(directory, 'setup-code'))).toBe(false)
  })

  test('enter with the right password, and are known by the session also after a restart', async () => {
    const first = room()
    await first.operators.add('cli', ruiz)
    const { token, role } = await first.operators.login('RUIZ', ruiz.password, IP)
    expect(role).toBe('admin')
    expect(first.operators.authenticate(token)).toEqual({ name: 'ruiz', role: 'admin' })
    expect(first.operators.authenticate(`${token}x`)).toBeNull()
    const second = reopened(first)
    expect(second.operators.authenticate(token)).toEqual({ name: 'ruiz', role: 'admin' })
    const everything = readFileSync(join(second.directory, 'state.db'), 'latin1')
    expect(everything).not.toContain(token)
    expect(everything).not.toContain(ruiz.password)
    second.operators.logout(token)
    expect(second.operators.authenticate(token)).toBeNull()
    expect(reopened(second).operators.authenticate(token)).toBeNull()
  })

  test('are forgotten after 12 idle hours and after 7 days at the longest', async () => {
    const { operators, clock } = room()
    await operators.add('cli', ruiz)
    const HOUR = 3_600_000
    const idle = await operators.login('ruiz', ruiz.password, IP)
    clock.advance(12 * HOUR + 1)
    expect(operators.authenticate(idle.token)).toBeNull()
    const busy = await operators.login('ruiz', ruiz.password, IP)
    for (let hours = 0; hours < 7 * 24; hours += 8) {
      clock.advance(8 * HOUR)
      expect(operators.authenticate(busy.token)).not.toBeNull()
    }
    clock.advance(1)
    expect(operators.authenticate(busy.token)).toBeNull()
  })

  test('are locked after five wrong passwords, longer each time, by name and network, known or not', async () => {
    const { operators, clock } = room()
    await operators.add('cli', ruiz)
    for (const name of ['ruiz', 'nobody']) {
      const wrong = (ip: string) => failure(() => operators.login(name, 'wrong password', ip))
      for (let count = 0; count < 5; count++) {
        expect(await wrong(IP)).toMatchObject({
          code: 'unauthenticated',
          message: 'Name or password is wrong.',
        })
      }
      expect(await wrong(IP)).toMatchObject({
        code: 'locked',
        advice: 'Wait 30 s, then try again.',
      })
      for (const waitMs of [30_000, 60_000, 120_000, 240_000, 480_000, 900_000, 900_000]) {
        clock.advance(waitMs - 1)
        expect(await wrong(IP)).toMatchObject({ code: 'locked' })
        clock.advance(1)
        expect(await wrong(IP)).toMatchObject({ code: 'unauthenticated' })
      }
      expect(await wrong('198.51.100.7')).toMatchObject({ code: 'unauthenticated' })
      expect(await failure(() => operators.login(name, ruiz.password, IP))).toMatchObject({
        code: 'locked',
      })
    }
    expect((await operators.login('ruiz', ruiz.password, '198.51.100.8')).name).toBe('ruiz')
    expect((await operators.login('ruiz', ruiz.password, IP)).name).toBe('ruiz')
    expect(await failure(() => operators.login('ruiz', 'wrong password', IP))).toMatchObject({
      code: 'unauthenticated',
    })
  }, 30_000)

  test('share a lock within one IPv6 network, however the address is written', async () => {
    const { operators } = room()
    await operators.add('cli', ruiz)
    for (const ip of [
      '2001:db8::1',
      '2001:db8:0:0::2',
      '2001:0db8::3',
      '2001:db8:0:0:ffff::',
      '2001:db8::',
    ]) {
      expect(await failure(() => operators.login('ruiz', 'wrong password', ip))).toMatchObject({
        code: 'unauthenticated',
      })
    }
    expect(await failure(() => operators.login('ruiz', 'x', '2001:db8::abcd'))).toMatchObject({
      code: 'locked',
    })
    expect(await failure(() => operators.login('ruiz', 'x', '2001:db8:0:1::1'))).toMatchObject({
      code: 'unauthenticated',
    })
  })

  test('cannot be guessed by many at once: side by side counts as one after the other', async () => {
    const { operators } = room()
    await operators.add('cli', ruiz)
    const guesses = await Promise.allSettled(
      Array.from({ length: 30 }, () => operators.login('ruiz', 'wrong password', IP)),
    )
    const codes = guesses.map((guess) =>
      guess.status === 'rejected' ? (guess.reason as RefusalError).code : 'in',
    )
    expect(codes.filter((code) => code === 'unauthenticated')).toHaveLength(5)
    expect(codes.filter((code) => code === 'locked')).toHaveLength(25)
  })

  test('that are more than can be hashed wait a bounded time, then are turned away', async () => {
    const { operators } = room()
    await operators.add('cli', ruiz)
    const logins = await Promise.allSettled(
      Array.from({ length: 60 }, (_, index) =>
        operators.login('ruiz', 'wrong password', `10.0.0.${index}`),
      ),
    )
    const codes = logins.map((login) =>
      login.status === 'rejected' ? (login.reason as RefusalError).code : 'in',
    )
    expect(codes.filter((code) => code === 'unavailable')).toHaveLength(8)
    expect(codes.filter((code) => code === 'unauthenticated')).toHaveLength(52)
  })

  test('lose their sessions with their password or their name; the last admin stays', async () => {
    const { operators, changes } = room()
    await operators.add('cli', ruiz)
    await operators.add('ruiz', { name: 'nagy', password: 'battery staple', role: 'viewer' })
    const first = await operators.login('nagy', 'battery staple', IP)
    const second = await operators.login('nagy', 'battery staple', IP)
    await operators.changePassword('nagy', 'nagy', 'another staple', first.token)
    expect(operators.authenticate(first.token)?.name).toBe('nagy')
    expect(operators.authenticate(second.token)).toBeNull()
    expect(await failure(() => operators.login('nagy', 'battery staple', IP))).toMatchObject({
      code: 'unauthenticated',
    })
    operators.remove('ruiz', 'nagy')
    expect(operators.authenticate(first.token)).toBeNull()
    expect(refusal(() => operators.remove('cli', 'ruiz')).code).toBe('conflict')
    expect(refusal(() => operators.remove('cli', 'ruiy')).advice).toContain('ruiz')
    expect(changes.history(10).map(({ key, author, after }) => [key, author, after])).toEqual([
      ['operator/nagy', 'ruiz', null],
      ['operator/nagy', 'ruiz', '{"role":"viewer"}'],
      ['operator/ruiz', 'cli', '{"role":"admin"}'],
    ])
    const last = changes.history(1)[0]?.id ?? ''
    expect(refusal(() => changes.undo('cli', last)).message).toContain('cannot be undone')
    expect(operators.audited(10).map(({ act }) => act)).toEqual([
      'operator.remove',
      'operator.password',
      'operator.add',
      'operator.add',
    ])
  })

  test.each([
    [{ name: '' }, 'name'],
    [{ name: 'a b' }, 'name'],
    [{ name: '-x' }, 'name'],
    [{ name: 'x'.repeat(65) }, 'name'],
    [{ name: 'cli' }, 'name'],
    [{ name: 'Postern' }, 'name'],
    [{ password: 'short' }, 'password'],
    [{ password: 'x'.repeat(1_025) }, 'password'],
    [{ name: 'long-name', password: 'Long-Name' }, 'password'],
    [{ role: 'root' }, 'role'],
    [{ role: 'viewer' }, 'role'],
  ])('with %j are refused by the field %s', async (part, field) => {
    const { operators } = room()
    const error = await failure(() => operators.add('cli', { ...ruiz, ...part }))
    expect(error).toBeInstanceOf(RefusalError)
    expect((error as RefusalError).field).toBe(field)
    expect(operators.list()).toEqual([])
  })
})

describe('operators of several nodes', () => {
  test('sign in on one, and are known, seen and signed out on all', async () => {
    const [a, b] = apart()
    await a.operators.add('cli', ruiz)
    meet(a, b)
    const { token } = await a.operators.login('ruiz', ruiz.password, IP)
    expect(b.operators.authenticate(token)).toBeNull()
    carry(a, b)
    expect(b.operators.authenticate(token)).toEqual({ name: 'ruiz', role: 'admin' })
    expect(b.operators.list()).toEqual(a.operators.list())
    b.operators.logout(token)
    carry(b, a)
    expect(a.operators.authenticate(token)).toBeNull()
    expect(reopened(a).operators.authenticate(token)).toBeNull()
  })

  test('stay signed out on all, though another node wrote a use of the session meanwhile', async () => {
    const [a, b] = apart()
    await a.operators.add('cli', ruiz)
    const { token } = await a.operators.login('ruiz', ruiz.password, IP)
    meet(a, b)
    a.operators.logout(token)
    for (let count = 0; count < 3; count++) {
      a.clock.advance(600_001)
      expect(b.operators.authenticate(token)).not.toBeNull()
    }
    meet(a, b)
    for (const { operators } of [a, b]) expect(operators.authenticate(token)).toBeNull()
  })

  test('are signed in as long as one of the nodes sees them, and no use is written twice in 10 min', async () => {
    const [a, b] = apart()
    await a.operators.add('cli', ruiz)
    const { token } = await a.operators.login('ruiz', ruiz.password, IP)
    meet(a, b)
    const head = b.rows.head
    for (let minutes = 0; minutes < 10; minutes++) {
      a.clock.advance(60_000)
      b.operators.authenticate(token)
    }
    expect(b.rows.head).toBe(head)
    a.clock.advance(11 * 3_600_000)
    b.operators.authenticate(token)
    expect(b.rows.head).toBeGreaterThan(head)
    a.clock.advance(2 * 3_600_000)
    expect(a.operators.authenticate(token)).toBeNull()
    carry(b, a)
    expect(a.operators.list()).toMatchObject([{ lastSeenMs: a.clock.wallMs() - 2 * 3_600_000 }])
    expect(a.operators.authenticate(token)).not.toBeNull()
  })

  test('lose every session with their password, also one begun where it was not known yet', async () => {
    const [a, b] = apart()
    await a.operators.add('cli', ruiz)
    meet(a, b)
    const kept = await a.operators.login('ruiz', ruiz.password, IP)
    await a.operators.changePassword('ruiz', 'ruiz', 'another horse', kept.token)
    const late = await b.operators.login('ruiz', ruiz.password, IP)
    expect(b.operators.authenticate(late.token)).not.toBeNull()
    meet(a, b)
    for (const { operators } of [a, b]) {
      expect(operators.authenticate(late.token)).toBeNull()
      expect(operators.authenticate(kept.token)?.name).toBe('ruiz')
      expect((await operators.login('ruiz', 'another horse', IP)).name).toBe('ruiz')
    }
  })

  test('that are removed on one are removed on all, whatever the other did with them', async () => {
    const [a, b] = apart()
    await a.operators.add('cli', ruiz)
    await a.operators.add('cli', nagy)
    meet(a, b)
    const { token } = await b.operators.login('nagy', nagy.password, IP)
    a.operators.remove('ruiz', 'nagy')
    await b.operators.changePassword('nagy', 'nagy', 'another staple')
    meet(a, b)
    for (const { operators, conflicts } of [a, b]) {
      expect(operators.list().map(({ name }) => name)).toEqual(['ruiz'])
      expect(operators.authenticate(token)).toBeNull()
      expect(await failure(() => operators.login('nagy', 'another staple', IP))).toMatchObject({
        code: 'unauthenticated',
      })
      expect(conflicts.list()).toEqual([])
    }
    await b.operators.add('ruiz', nagy)
    meet(a, b)
    expect(a.operators.authenticate(token)).toBeNull()
    expect((await a.operators.login('nagy', nagy.password, IP)).name).toBe('nagy')
  })

  test('of one name, added on two nodes at once, are one on both, and shown without their passwords (K15)', async () => {
    const [a, b] = apart()
    await a.operators.add('cli', ruiz)
    meet(a, b)
    await a.operators.add('ruiz', { ...nagy, role: 'admin' })
    a.clock.advance(5)
    await b.operators.add('ruiz', { ...nagy, password: 'second staple' })
    meet(a, b)
    for (const { operators } of [a, b]) {
      expect(operators.list()).toMatchObject([{ name: 'nagy', role: 'viewer' }, { name: 'ruiz' }])
      expect((await operators.login('nagy', 'second staple', IP)).role).toBe('viewer')
      expect(
        await failure(() => operators.login('nagy', nagy.password, '192.0.2.9')),
      ).toMatchObject({ code: 'unauthenticated' })
    }
    const shown = a.conflicts.list()
    expect(b.conflicts.list()).toEqual(shown)
    expect(shown.map(({ key }) => key)).toEqual(['operator/nagy', 'operator/nagy/password'])
    expect(JSON.stringify(shown)).not.toContain('argon2')
    for (const { key, sides } of shown) a.conflicts.keep('ruiz', key, sides[1]?.id ?? '')
    meet(a, b)
    expect((await b.operators.login('nagy', nagy.password, '192.0.2.8')).role).toBe('admin')
    expect(b.conflicts.list()).toEqual([])
    expect(JSON.stringify(b.changes.history(100))).not.toContain('argon2')
  })

  test('that one node removes are gone, though another one keeps them of two values later', async () => {
    const [a, b] = apart()
    await a.operators.add('cli', ruiz)
    meet(a, b)
    await a.operators.add('ruiz', { ...nagy, role: 'admin' })
    await b.operators.add('ruiz', nagy)
    meet(a, b)
    a.operators.remove('ruiz', 'nagy')
    a.clock.advance(5)
    const [shown] = b.conflicts.list()
    b.conflicts.keep('ruiz', 'operator/nagy', shown?.sides[0]?.id ?? '')
    meet(a, b)
    for (const { operators, conflicts } of [a, b]) {
      expect(operators.list().map(({ name }) => name)).toEqual(['ruiz'])
      expect(conflicts.list()).toMatchObject([
        { key: 'operator/nagy', sides: [{ value: null }, {}] },
      ])
    }
  })

  test('close the set-up everywhere with the first of them, for good', async () => {
    const [a, b] = apart()
    const code = b.operators.setupCode ?? ''
    await a.operators.setup({
      code: a.operators.setupCode ?? '',
      name: 'ruiz',
      password: ruiz.password,
      clientIp: IP,
    })
    carry(a, b)
    expect(b.operators.setupCode).toBeNull()
    expect(existsSync(join(b.directory, 'setup-code'))).toBe(false)
    const input = { code, name: 'nagy', password: nagy.password, clientIp: IP }
    expect(await failure(() => b.operators.setup(input))).toMatchObject({ code: 'conflict' })
    // Two nodes apart may each remove the other's last admin.
    await a.operators.add('ruiz', { ...nagy, role: 'admin' })
    meet(a, b)
    a.operators.remove('cli', 'ruiz')
    b.operators.remove('cli', 'nagy')
    meet(a, b)
    expect(a.operators.list()).toEqual([])
    const [back, other] = [reopened(a), reopened(b)]
    for (const node of [back, other]) expect(node.operators.setupCode).toBeNull()
    await back.operators.add('cli', ruiz)
    expect(back.operators.list()).toHaveLength(1)
  })

  test('are not set up on a node that joined others', async () => {
    const here = room()
    const code = here.operators.setupCode ?? ''
    here.hasJoined = true
    expect(here.operators.setupCode).toBeNull()
    expect(here.operators.setupCodeMatches(code, IP)).toBe(false)
    const input = { code, name: 'nagy', password: nagy.password, clientIp: IP }
    expect(await failure(() => here.operators.setup(input))).toMatchObject({ code: 'conflict' })
  })

  test('cannot be changed while the clock is wrong, and can sign in and out', async () => {
    const here = room()
    const { operators } = here
    await operators.add('cli', ruiz)
    here.readOnly = 'The clock is wrong.'
    for (const act of [
      () => operators.add('cli', nagy),
      () => operators.changePassword('cli', 'ruiz', 'another horse'),
      async () => operators.remove('cli', 'ruiz'),
    ]) {
      expect(await failure(act)).toMatchObject({ code: 'unavailable' })
    }
    const { token } = await operators.login('ruiz', ruiz.password, IP)
    operators.logout(token)
    expect(operators.authenticate(token)).toBeNull()
  })
})

describe('the audit', () => {
  test('is one of all nodes, newest first, and each node keeps its lines in a chain', () => {
    const [a, b] = apart()
    for (let count = 0; count < 3; count++) {
      a.operators.audit('ruiz', 'held.release', `a${count}`, 'x'.repeat(2_000))
      a.clock.advance(1)
      b.operators.audit('nagy', 'held.delete', `b${count}`, '')
      a.clock.advance(1)
    }
    meet(a, b)
    const rows = b.operators.audited(100)
    expect(rows.map(({ subject }) => subject)).toEqual(['b2', 'a2', 'b1', 'a1', 'b0', 'a0'])
    expect(rows[1]?.detail).toHaveLength(1_000)
    expect(a.operators.audited(100)).toEqual(rows)
    expect([a.audit.breaks(), b.audit.breaks()]).toEqual([[], []])
  })

  test('shows a line that was changed, and one that was taken out', () => {
    const here = room()
    for (let count = 0; count < 4; count++) here.operators.audit('ruiz', 'x', `s${count}`, '')
    const ids = here.operators.audited(10).map(({ id }) => id)
    const { sqlite } = here.databases.state
    sqlite.run(`UPDATE shared SET state = replace(state, 's1', 's9') WHERE key = '${ids[2]}'`)
    expect(here.audit.breaks()).toEqual([ids[1] ?? ''])
    sqlite.run(`DELETE FROM shared WHERE key = '${ids[2]}'`)
    expect(here.audit.breaks()).toEqual([ids[1] ?? ''])
  })

  test('goes on where it was when a transaction with a line of it failed', () => {
    const here = room()
    here.operators.audit('ruiz', 'x', 'one', '')
    expect(() =>
      here.rows.transact(() => {
        here.operators.audit('ruiz', 'x', 'two', '')
        throw new Error('no')
      }),
    ).toThrow('no')
    here.operators.audit('ruiz', 'x', 'three', '')
    expect(here.operators.audited(10).map(({ subject }) => subject)).toEqual(['three', 'one'])
    expect(here.audit.breaks()).toEqual([])
  })
})

describe('an API token', () => {
  test('is given once, opens every node, and is known by nothing that is kept', () => {
    const [a, b] = apart()
    const { token, row } = a.tokens.add('ruiz', { name: 'backup', role: 'viewer', days: 30 })
    expect(token).toMatch(/^pat1_[0-9a-f]{16}[A-Za-z0-9_-]{43}$/)
    meet(a, b)
    for (const { tokens } of [a, b, reopened(b)]) {
      expect(tokens.authenticate(token)).toEqual({ name: 'token:backup', role: 'viewer' })
      expect(tokens.list()).toEqual([row])
      for (const wrong of ['', token.slice(0, -1), `${token.slice(0, -1)}~`, `${token}x`]) {
        expect(tokens.authenticate(wrong)).toBeNull()
      }
      const other = `${token.slice(0, -1)}${token.endsWith('A') ? 'B' : 'A'}`
      expect(tokens.authenticate(other)).toBeNull()
    }
    const kept = JSON.stringify([a.rows.list('apitoken'), a.changes.history(9), a.audit.newest(9)])
    expect(kept).not.toContain(token.slice(21))
  })

  test('ends with its time, and on every node when it is removed on one', () => {
    const [a, b] = apart()
    const short = a.tokens.add('ruiz', { name: 'a', role: 'admin', days: 1 })
    const long = a.tokens.add('ruiz', { name: 'b', role: 'admin', days: null })
    meet(a, b)
    b.tokens.remove('nagy', long.row.id)
    meet(a, b)
    expect(a.tokens.authenticate(long.token)).toBeNull()
    a.clock.advance(86_400_000 - 1)
    expect(b.tokens.authenticate(short.token)).not.toBeNull()
    a.clock.advance(1)
    expect(b.tokens.authenticate(short.token)).toBeNull()
    expect(b.tokens.list()).toHaveLength(1)
    expect(a.audit.newest(1)).toMatchObject([{ act: 'apitoken.remove', author: 'nagy' }])
  })

  test.each([
    [{ name: '' }, 'name'],
    [{ name: 'a:b' }, 'name'],
    [{ role: 'root' }, 'role'],
    [{ days: 0 }, 'days'],
    [{ days: 1.5 }, 'days'],
    [{ days: 3_651 }, 'days'],
  ])('with %j is refused by the field %s', (part, field) => {
    const { tokens } = room()
    const input = { name: 'x', role: 'viewer', days: null, ...part }
    expect(refusal(() => tokens.add('ruiz', input)).field).toBe(field)
    expect(tokens.list()).toEqual([])
  })

  test('of which there are 256 is refused', () => {
    const here = room()
    here.rows.transact(() => {
      for (let count = 0; count < 256; count++) {
        here.tokens.add('ruiz', { name: 'x', role: 'viewer', days: null })
      }
    })
    expect(
      refusal(() => here.tokens.add('ruiz', { name: 'x', role: 'viewer', days: null })).message,
    ).toContain('256')
  })

  test('in a form that this version cannot read opens nothing', () => {
    const here = room()
    for (const [index, value] of ['null', '{', '{"name":1}', '{"role":"root"}'].entries()) {
      here.rows.write('apitoken', `${index}`.padStart(16, '0'), value, 'peer')
    }
    expect(here.tokens.list()).toEqual([])
  })
})
