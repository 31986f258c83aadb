/** Keys that sign, on the page of their domain. */
import { describe, expect, test } from 'bun:test'
import { signedIn } from './web-session.ts'

const PAGE = '/domains/example.com'

async function place(name?: string) {
  const session = await signedIn([], name)
  const ask = async (path: string): Promise<string> => await (await session.ask(path)).text()
  return { ...session, ask }
}

const KEY = { selector: 's2026', algorithm: 'rsa' }

describe('the page of a domain', () => {
  test('says that mail goes out unsigned, makes a key and gives its record to copy', async () => {
    const { admin, ask, post } = await place()
    expect(await ask(PAGE)).toContain('without a signature')
    const added = await post(`${PAGE}/dkim`, KEY)
    expect([added.status, added.headers.get('location')]).toEqual([303, `${PAGE}#signing`])
    expect(admin.signingKeys('example.com')).toMatchObject([{ ...KEY, state: 'waiting' }])
    const page = await ask(PAGE)
    expect(page).toContain('<code id="name-s2026">s2026._domainkey.example.com</code>')
    expect(page).toContain('<code id="record-s2026">v=DKIM1; k=rsa; p=MIIB</code>')
    expect(page).toContain('data-copy="#record-s2026"')
    expect(page).toContain('It signs nothing until the DNS has its record.')
    expect(page).not.toContain('without a signature')
    expect(await ask(`${PAGE}/remove`)).toContain('Its keys go too')
  })

  test('a check that finds no record says so at the key, one that finds it lets it sign', async () => {
    const { admin, ask, post } = await place()
    await post(`${PAGE}/dkim`, KEY)
    admin.missing = 's2026._domainkey.example.com has no TXT record yet.'
    const refused = await post(`${PAGE}/dkim/s2026`, { act: 'check' })
    expect(refused.status).toBe(422)
    const [, atKey = ''] = (await refused.text()).split('id="key-s2026"')
    expect(atKey.split('</li>')[0]).toContain('has no TXT record yet.')
    // Not at the form, which nobody sent.
    expect(atKey.split('</li>')[1]).not.toContain('TXT record yet')
    expect(admin.keys[0]?.state).toBe('waiting')
    admin.missing = null
    expect((await post(`${PAGE}/dkim/s2026`, { act: 'check' })).status).toBe(303)
    expect(await ask(PAGE)).toContain('It signs mail of this domain that goes out.')
  })

  test('a key that signs is retired, and removed only after a question', async () => {
    const { admin, ask, post } = await place()
    await post(`${PAGE}/dkim`, KEY)
    await post(`${PAGE}/dkim/s2026`, { act: 'check' })
    expect(await ask(`${PAGE}/dkim/s2026/remove`)).toContain('goes out unsigned')
    expect((await post(`${PAGE}/dkim/s2026`, { act: 'retire' })).status).toBe(303)
    const retired = await ask(PAGE)
    expect(retired).toContain('It signs no more.')
    expect(retired).not.toContain('id="record-s2026"')
    expect(await ask(`${PAGE}/dkim/s2026/remove`)).not.toContain('goes out unsigned')
    expect(admin.keys).toHaveLength(1)
    expect((await post(`${PAGE}/dkim/s2026/remove`)).status).toBe(303)
    expect(admin.keys).toEqual([])
    expect((await post(`${PAGE}/dkim/s2026/remove`)).status).toBe(404)
  })

  test('a selector that is none is refused at its field, and what was typed stays', async () => {
    const { admin, post } = await place()
    const refused = await post(`${PAGE}/dkim`, { selector: 'a "b"', algorithm: 'ed25519' })
    expect(refused.status).toBe(422)
    const page = await refused.text()
    expect(page).toContain('id="dkim-selector-e"')
    expect(page).toContain('value="a &quot;b&quot;"')
    expect(page).toContain('<option value="ed25519" selected>')
    expect(admin.keys).toEqual([])
  })

  test('a key that has not come to this node says so', async () => {
    const { admin, ask, post } = await place()
    await post(`${PAGE}/dkim`, KEY)
    await post(`${PAGE}/dkim/s2026`, { act: 'check' })
    admin.keys = admin.keys.map((key) => ({ ...key, isHere: false }))
    const page = await ask(PAGE)
    expect(page).toContain('Not on this node yet')
    expect(page).not.toContain('It signs mail')
  })

  test('a key that signs without a record says so, with the record to publish and a button to check', async () => {
    const { admin, ask, post } = await place()
    await post(`${PAGE}/dkim`, KEY)
    await post(`${PAGE}/dkim/s2026`, { act: 'check' })
    expect(await ask(PAGE)).not.toContain('>Check<')
    const trouble = 's2026._domainkey.example.com has no TXT record.'
    admin.keys = admin.keys.map((key) => ({ ...key, trouble }))
    const page = await ask(PAGE)
    for (const words of [trouble, 'Signs, without a record', 'id="record-s2026"', '>Check<'])
      expect(page).toContain(words)
  })

  test('who only looks sees keys and records, and no button; the door refuses what they send', async () => {
    const { admin, ask, post } = await place('h.berg')
    await admin.addSigningKey({ name: 'a.ruiz', role: 'admin' }, { domain: 'example.com', ...KEY })
    const page = await ask(PAGE)
    expect(page).toContain('id="record-s2026"')
    for (const word of ['>Check<', '>Retire<', '/remove"', 'Add a key'])
      expect(page).not.toContain(word)
    for (const [path, form] of [
      [`${PAGE}/dkim`, { selector: 'b', algorithm: 'rsa' }],
      [`${PAGE}/dkim/s2026`, { act: 'check' }],
      [`${PAGE}/dkim/s2026`, { act: 'retire' }],
      [`${PAGE}/dkim/s2026/remove`, {}],
    ] as const)
      expect((await post(path, form)).status).toBe(403)
    expect(admin.keys).toMatchObject([{ state: 'waiting' }])
  })

  test('an address without a key leads to its domain', async () => {
    const { send, cookie, post } = await place()
    for (const path of [`${PAGE}/dkim`, `${PAGE}/dkim/s2026`]) {
      const answer = await send(path, { headers: { cookie }, redirect: 'manual' })
      expect([answer.status, answer.headers.get('location')]).toEqual([303, `${PAGE}#signing`])
    }
    expect((await post('/domains/none.example/dkim', { ...KEY, selector: '-' })).status).toBe(404)
  })
})
