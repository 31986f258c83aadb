/** stub */
export type Confinement = { readonly missing: readonly string[] }
export function confine(_options: { readonly readable: readonly string[] }): Confinement { return { missing: [] } }
