//! The attribute `#[taskscope_probe::main]`. It takes what `#[tokio::main]` takes.

use proc_macro::TokenStream;
use quote::{ToTokens, quote, quote_spanned};
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Expr, ExprLit, ItemFn, Lit, MetaNameValue, Token, parse_macro_input};

/// Runs an `async fn main` on a Tokio runtime that the probe watches, in place of `#[tokio::main]`, whose arguments it
/// takes: `flavor = "multi_thread" | "current_thread"`, `worker_threads = N`, `start_paused = true`, `name = "…"`,
/// `unhandled_panic = "ignore" | "shutdown_runtime"`, and `crate = "path::to::tokio"`.
///
/// The body of `main` is a row of its own. Tokio needs the features that `#[tokio::main]` needs (`rt-multi-thread`, or
/// `rt` with `flavor = "current_thread"`).
#[proc_macro_attribute]
pub fn main(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let arguments = parse_macro_input!(arguments as Arguments);
    let function = parse_macro_input!(item as ItemFn);
    expand(&arguments, function).unwrap_or_else(|error| error.to_compile_error()).into()
}

#[derive(Default)]
struct Arguments {
    flavor: Flavor,
    worker_threads: Option<Expr>,
    start_paused: Option<Expr>,
    name: Option<Expr>,
    unhandled_panic: Option<syn::Ident>,
    tokio: Option<syn::Path>,
}

#[derive(Default, Clone, Copy, PartialEq)]
enum Flavor {
    #[default]
    MultiThread,
    CurrentThread,
}

impl Parse for Arguments {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let mut arguments = Self::default();
        for pair in Punctuated::<MetaNameValue, Token![,]>::parse_terminated(input)? {
            let name = pair.path.to_token_stream().to_string();
            match name.as_str() {
                "flavor" => arguments.flavor = flavor(&pair.value)?,
                "worker_threads" => arguments.worker_threads = Some(pair.value),
                "start_paused" => arguments.start_paused = Some(pair.value),
                "name" => arguments.name = Some(pair.value),
                "unhandled_panic" => arguments.unhandled_panic = Some(unhandled_panic(&pair.value)?),
                "crate" => arguments.tokio = Some(text(&pair.value)?.parse()?),
                _ => {
                    let known = "flavor, worker_threads, start_paused, name, unhandled_panic, crate";
                    return Err(syn::Error::new(
                        pair.path.span(),
                        format!("unknown argument `{name}`; known are {known}"),
                    ));
                }
            }
        }
        if arguments.flavor == Flavor::CurrentThread
            && let Some(threads) = &arguments.worker_threads
        {
            return Err(syn::Error::new(
                threads.span(),
                "a `current_thread` runtime has no `worker_threads`; leave out one of the two",
            ));
        }
        Ok(arguments)
    }
}

fn text(value: &Expr) -> syn::Result<syn::LitStr> {
    match value {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Ok(text.clone()),
        other => Err(syn::Error::new(other.span(), "a text in quotes belongs here")),
    }
}

fn flavor(value: &Expr) -> syn::Result<Flavor> {
    let text = text(value)?;
    match text.value().as_str() {
        "multi_thread" => Ok(Flavor::MultiThread),
        "current_thread" => Ok(Flavor::CurrentThread),
        other => {
            let known = "`multi_thread` or `current_thread`";
            Err(syn::Error::new(text.span(), format!("no flavor is called `{other}`; it is {known}")))
        }
    }
}

fn unhandled_panic(value: &Expr) -> syn::Result<syn::Ident> {
    let text = text(value)?;
    let variant = match text.value().as_str() {
        "ignore" => "Ignore",
        "shutdown_runtime" => "ShutdownRuntime",
        other => {
            let known = "`ignore` or `shutdown_runtime`";
            return Err(syn::Error::new(
                text.span(),
                format!("unhandled_panic cannot be `{other}`; it is {known}"),
            ));
        }
    };
    Ok(syn::Ident::new(variant, text.span()))
}

fn expand(arguments: &Arguments, mut function: ItemFn) -> syn::Result<proc_macro2::TokenStream> {
    if function.sig.asyncness.take().is_none() {
        return Err(syn::Error::new(function.sig.fn_token.span, "`async` is missing before `fn`"));
    }
    if !function.sig.inputs.is_empty() {
        return Err(syn::Error::new(function.sig.inputs.span(), "the main function takes no arguments"));
    }
    let tokio = match &arguments.tokio {
        Some(path) => quote!(#path),
        None => quote!(::tokio),
    };
    let builder = match arguments.flavor {
        Flavor::MultiThread => quote!(#tokio::runtime::Builder::new_multi_thread()),
        Flavor::CurrentThread => quote!(#tokio::runtime::Builder::new_current_thread()),
    };
    let worker_threads = arguments.worker_threads.iter().map(|n| quote!(runtime.worker_threads(#n);));
    let start_paused = arguments.start_paused.iter().map(|paused| quote!(runtime.start_paused(#paused);));
    let name = arguments.name.iter().map(|name| quote!(runtime.name(#name);));
    let unhandled = arguments
        .unhandled_panic
        .iter()
        .map(|how| quote!(runtime.unhandled_panic(#tokio::runtime::UnhandledPanic::#how);));

    let ItemFn { attrs, vis, sig, block } = function;
    let output = match &sig.output {
        syn::ReturnType::Default => quote!(()),
        syn::ReturnType::Type(_, output) => quote!(#output),
    };
    // The body keeps its span, so that its row says `spawned at` the user's own line.
    let run = quote_spanned!(block.span()=> ::taskscope_probe::__private::run(runtime, body));
    Ok(quote! {
        #(#attrs)*
        #vis #sig {
            let mut runtime = #builder;
            #(#worker_threads)*
            #(#start_paused)*
            #(#name)*
            #(#unhandled)*
            let body = async #block;
            // Pins the type, so that an error in the body is told where it is.
            #[allow(clippy::let_unit_value, clippy::diverging_sub_expression, unreachable_code)]
            let result: #output = #run;
            #[allow(unreachable_code)]
            result
        }
    })
}
